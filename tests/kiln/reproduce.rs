//! Proofs: what is reproducible passes, what is not is caught.

use crate::world::World;

#[test]
fn a_deterministic_package_is_reproducible() {
    let world = World::new();
    let run = world.kiln(&["prove", "tools/good"]);
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(
        run.stdout,
        "same       good-1\nreproducible: 1 builds repeated, every bit the same\n"
    );
}

/// Packages that each let one thing through: name, install phase, a part of the difference,
/// and the variation that alone makes it, if any does.
const LEAKS: [(&str, &str, &str, &str); 14] = [
    (
        "time",
        "date +%s > \"$out/stamp\"",
        "file `stamp` differs at byte",
        "",
    ),
    (
        "random",
        "echo \"a$RANDOM$RANDOM$RANDOM\" > \"$out/r\"",
        "file `r` differs at byte",
        "",
    ),
    (
        "host",
        "echo \"$HOSTNAME\" > \"$out/h\"",
        "differs at byte 0: \"localhost\\n\", in the rebuild \"rebuilder\\n\"",
        "host-name",
    ),
    (
        "jobs",
        "touch \"$out/jobs-$JOBS\"",
        "in the rebuild",
        "cores",
    ),
    (
        "path",
        "echo \"${#out} ${out:12:8}\" > \"$out/p\"",
        "file `p` differs at byte",
        "scratch-path",
    ),
    (
        "user",
        "echo \"$UID ${GROUPS[0]}\" > \"$out/u\"",
        "differs at byte 0: \"1000 100\\n\", in the rebuild \"4321 1234\\n\"",
        "user-and-group",
    ),
    (
        "umask",
        "umask > \"$out/m\"",
        "differs at byte 3: \"2\\n\", in the rebuild \"7\\n\"",
        "umask",
    ),
    (
        "process",
        "echo \"$$\" > \"$out/n\"",
        "file `n` differs at byte",
        "process-numbers",
    ),
    (
        "domain",
        "cat /proc/sys/kernel/domainname > \"$out/d\"",
        "in the rebuild \"rebuild.example\\n\"",
        "domain-name",
    ),
    (
        "addresses",
        "cat /proc/self/personality > \"$out/a\"",
        "file `a` differs at byte 3",
        "aslr",
    ),
    (
        "uptime",
        "read -ra stat < /proc/self/stat; echo \"$((stat[21] / 100000))\" > \"$out/s\"",
        "file `s` differs at byte",
        "uptime",
    ),
    (
        "input",
        "if [ -p /dev/stdin ]; then echo pipe; else echo none; fi > \"$out/i\"",
        "\"none\\n\", in the rebuild \"pipe\\n\"",
        "standard-input",
    ),
    (
        "year",
        "date +%Y > \"$out/y\"",
        "file `y` differs at byte",
        "wall-clock",
    ),
    (
        "order",
        "mkdir d; touch d/a d/b d/c; ls -U d > \"$out/o\"",
        "file `o` differs at byte 0",
        "directory-order",
    ),
];

#[test]
fn whatever_varies_is_caught_with_the_first_difference_and_its_cause() {
    for (name, install, expected, cause) in LEAKS {
        let world = World::new();
        world.package(&format!("tools/{name}"), "", install);
        let run = world.kiln(&["prove", &format!("tools/{name}")]);
        assert_eq!(run.status, 1, "{name}: {run:?}");
        assert!(run.stdout.contains(expected), "{name}: {run:?}");
        let found = match cause {
            "" => "; it differs also with nothing varied: by time or by chance\n".to_owned(),
            cause => format!("; varying `{cause}` alone does it\n"),
        };
        assert!(run.stdout.contains(&found), "{name}: {run:?}");
        assert!(
            run.stdout
                .contains("not reproducible: 1 of 1 builds differ"),
            "{run:?}"
        );
        world.assert_usable();
    }
}

#[test]
fn names_of_itself_are_no_difference_but_what_stands_beside_them_is() {
    let world = World::new();
    world.package(
        "tools/mixed",
        "",
        "echo \"$out\" > \"$out/a\"; date +%s > \"$out/b\"",
    );
    let run = world.kiln(&["prove", "tools/mixed"]);
    assert_eq!(run.status, 1);
    assert!(run.stdout.contains("file `b` differs at byte"), "{run:?}");
}

#[test]
fn what_several_variations_do_together_is_told() {
    let world = World::new();
    world.package(
        "tools/both",
        "",
        "if [ \"$HOSTNAME\" = rebuilder ] && [ \"$(umask)\" = 0027 ]; then echo both; else echo no; fi \
         > \"$out/x\"",
    );
    let run = world.kiln(&["prove", "--json", "tools/both"]);
    assert_eq!(run.status, 1, "{run:?}");
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let action = &document["actions"][0];
    let cause: Vec<&str> = action["cause"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert!(cause.len() > 1, "{cause:?}");
    assert!(
        cause.contains(&"host-name") && cause.contains(&"umask"),
        "{cause:?}"
    );
}

#[test]
fn a_rebuild_that_fails_hides_no_other_verdict() {
    let world = World::new();
    world.user_of_good("tools/user", "echo \"$good\" > \"$out/x\"");
    world.package(
        "tools/once",
        "",
        "if [ \"$HOSTNAME\" = rebuilder ]; then exit 3; fi; echo x > \"$out/x\"",
    );
    let targets = ["prove", "tools/once", "tools/user"];
    let run = world.kiln(&targets);
    assert_eq!(run.status, 2, "{run:?}");
    assert_eq!(run.stdout, "same       good-1\nsame       user-1\n");
    assert!(
        run.stderr.contains("error: build of `once-1` failed"),
        "{run:?}"
    );
    let json = world.kiln(&[&targets[..], &["--json"]].concat());
    assert_eq!(json.status, 2);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["reproducible"], false);
    assert_eq!(document["actions"].as_array().unwrap().len(), 2);
    let message = document["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("`once-1`"), "{message}");
}
