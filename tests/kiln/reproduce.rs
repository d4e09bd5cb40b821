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
