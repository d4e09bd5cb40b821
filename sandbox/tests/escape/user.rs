//! The same acts for an ordinary user, who asks for the sandbox without any capability.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::programs::{PROGRAMS, copy_program, is_second_run, programs};

/// Runs these tests again as user 65534. The twins have been run by root then.
#[test]
fn an_ordinary_user_is_refused_the_same() {
    if is_second_run() || !nix::unistd::geteuid().is_root() {
        return println!("this whole run is an ordinary user's");
    }
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
    let output = Command::new(directory.path().join("tests"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env(PROGRAMS, directory.path())
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("writing_to_an_input ... ok"), "{text}");
}
