//! The same acts for an ordinary user, who asks for the sandbox without any capability, and
//! for users of a range of ids, who have a few inside.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use crate::lent::{self, User};
use crate::programs::{PROGRAMS, USER, copy_program, is_second_run, programs};

/// Tests of what is otherwise with a range of ids: which capabilities there are, and what the
/// host sees of a file while a build runs, which writes to memory.
const WITHOUT_RANGE: [&str; 2] = ["the_powers_of_user_0", "a_build_that_ignores_every_signal"];

/// Tests of who performs the acts, who is not user 0 where they say so.
const OF_USER_1000: [&str; 2] = [
    "the_caller_s_user",
    "gaining_a_user_from_a_setuid_program_in_an_input",
];

/// Makes a directory that everyone can read, with the programs in it.
fn programs_for_everyone() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let tests = std::env::current_exe().unwrap();
    for (name, source) in [
        ("tests", &tests),
        ("probe", &programs().probe),
        ("child", &programs().child),
    ] {
        copy_program(source, &directory.path().join(name));
    }
    directory
}

fn succeeds(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("writing_to_an_input ... ok"), "{text}");
}

/// Runs these tests again as user 65534. The twins have been run by root then.
#[test]
fn an_ordinary_user_is_refused_the_same() {
    if is_second_run() || !nix::unistd::geteuid().is_root() {
        return println!("this whole run is an ordinary user's");
    }
    let directory = programs_for_everyone();
    let output = Command::new(directory.path().join("tests"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env(PROGRAMS, directory.path())
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    succeeds(&output);
}

/// Runs these tests again in sandboxes of a range of ids: as the caller, and as its user 0.
fn a_range_is_refused_the_same(caller: User) {
    if is_second_run() {
        return;
    }
    if let Some(why) = lent::obstacle(caller) {
        return println!("skipped: {why}");
    }
    let directory = programs_for_everyone();
    for (user, otherwise) in [("1000", &[][..]), ("0", &OF_USER_1000[..])] {
        let skipped = WITHOUT_RANGE.iter().chain(otherwise);
        let skipped = skipped.flat_map(|name| ["--skip", name]);
        let mut command = lent::lending(directory.path(), &lent::enough(), caller);
        command
            .arg(directory.path().join("tests"))
            .args(skipped)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env(PROGRAMS, directory.path())
            .env(USER, user)
            .current_dir("/");
        succeeds(&command.output().unwrap());
    }
}

#[test]
fn a_range_of_ids_that_root_has_is_refused_the_same() {
    a_range_is_refused_the_same(User::Root);
}

#[test]
fn a_range_of_ids_that_an_ordinary_user_has_is_refused_the_same() {
    a_range_is_refused_the_same(User::Nobody);
}
