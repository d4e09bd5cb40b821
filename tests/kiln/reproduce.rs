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

#[test]
fn whatever_varies_is_caught_with_the_first_difference() {
    for (name, install, expected) in [
        (
            "time",
            "date +%s > \"$out/stamp\"",
            "file `stamp` differs at byte",
        ),
        (
            "random",
            "echo \"a$RANDOM$RANDOM$RANDOM\" > \"$out/r\"",
            "file `r` differs at byte",
        ),
        (
            "host",
            "echo \"$HOSTNAME\" > \"$out/h\"",
            "differs at byte 0: \"localhost\\n\", in the rebuild \"rebuilder\\n\"",
        ),
        ("jobs", "touch \"$out/jobs-$JOBS\"", "in the rebuild"),
        (
            "path",
            "echo \"${#out} ${out:12:8}\" > \"$out/p\"",
            "file `p` differs at byte",
        ),
        (
            "user",
            "echo \"$UID ${GROUPS[0]}\" > \"$out/u\"",
            "differs at byte 0: \"1000 100\\n\", in the rebuild \"4321 1234\\n\"",
        ),
        (
            "umask",
            "umask > \"$out/m\"",
            "differs at byte 3: \"2\\n\", in the rebuild \"7\\n\"",
        ),
        (
            "process",
            "echo \"$$\" > \"$out/n\"",
            "file `n` differs at byte",
        ),
        (
            "domain",
            "cat /proc/sys/kernel/domainname > \"$out/d\"",
            "in the rebuild \"rebuild.example\\n\"",
        ),
        (
            "addresses",
            "cat /proc/self/personality > \"$out/a\"",
            "file `a` differs at byte 3",
        ),
        (
            "uptime",
            "read -ra stat < /proc/self/stat; echo \"$((stat[21] / 100000))\" > \"$out/s\"",
            "file `s` differs at byte",
        ),
        (
            "input",
            "if [ -p /dev/stdin ]; then echo pipe; else echo none; fi > \"$out/i\"",
            "\"none\\n\", in the rebuild \"pipe\\n\"",
        ),
        ("year", "date +%Y > \"$out/y\"", "file `y` differs at byte"),
        (
            "order",
            "mkdir d; touch d/a d/b d/c; ls -U d > \"$out/o\"",
            "file `o` differs at byte 0",
        ),
    ] {
        let world = World::new();
        world.package(&format!("tools/{name}"), "", install);
        let run = world.kiln(&["prove", &format!("tools/{name}")]);
        assert_eq!(run.status, 1, "{name}: {run:?}");
        assert!(run.stdout.contains(expected), "{name}: {run:?}");
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
