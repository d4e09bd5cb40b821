//! The sandbox's own executable, which must not be within a build's reach.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use kiln_sandbox::{Access, End, Node, SandboxError};

use crate::attempt::{Place, run_by};
use crate::programs::{copy_program, is_second_run, programs};

#[test]
fn overwriting_the_running_program() {
    for act in ["write /proc/self/exe", "reopen /proc/self/exe"] {
        // On the host the kernel refuses too, as long as the program runs. Inside, it would
        // do so even if the program's file could be written to afterwards.
        let inside = Place::new().inside(act);
        assert!(inside.starts_with("refused "), "{inside}");
    }
    assert_eq!(
        Place::new().inside("make-executable /proc/self/exe"),
        "refused EROFS"
    );
}

/// Makes the library of `overwrite.c`, and a copy of the sandbox's executable, which its
/// owner could write to.
fn prepare(place: &Place) -> PathBuf {
    let library = place.path("input").join("overwrite.so");
    let built = place.path("input").join("source.c");
    std::fs::write(&built, include_str!("overwrite.c")).unwrap();
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
        .args([&library, &built])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let runtime = place.path("host").join("runtime");
    copy_program(&programs().child, &runtime);
    runtime
}

/// Lets a build whose first program is a script with `/proc/self/exe` as its interpreter
/// make the sandbox execute itself in the build's environment, and then perform an act on
/// the sandbox's executable. Returns how that ended, and the executable's mode afterwards.
fn after_self_execution(act: &str) -> (String, u32) {
    let place = Place::new();
    let runtime = prepare(&place);
    let library = place.path("input").join("overwrite.so");
    if !is_second_run() {
        let outside = Command::new(&runtime)
            .env("LD_PRELOAD", library)
            .env("PROBE", &programs().probe)
            .env("ACT", act)
            .status();
        assert!(outside.unwrap().success(), "{act}");
    }
    std::fs::set_permissions(&runtime, Permissions::from_mode(0o755)).unwrap();
    let script = place.path("input").join("script");
    std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let mut request = place.request("");
    request.command = vec!["/input/script".to_owned()];
    for (name, value) in [
        ("LD_PRELOAD", "/input/overwrite.so"),
        ("PROBE", "/probe"),
        ("ACT", act),
    ] {
        request
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    for top in ["usr", "lib", "lib64"] {
        request.nodes.push(Node::Bind {
            path: format!("/{top}"),
            source: std::fs::canonicalize(format!("/{top}")).unwrap(),
            access: Access::ReadOnly,
        });
    }
    let ended = match run_by(&runtime, &request) {
        Ok((End::Exited(0), _)) => "worked".to_owned(),
        Ok((_, log)) => log.trim_end().to_owned(),
        // The sandbox does not execute itself at all.
        Err(SandboxError::Step { .. }) => "refused".to_owned(),
        Err(error) => panic!("{error:?}"),
    };
    let mode = std::fs::metadata(&runtime).unwrap().permissions().mode();
    (ended, mode & 0o7777)
}

#[test]
fn overwriting_the_sandbox_s_executable() {
    let (ended, _) = after_self_execution("reopen-number");
    assert!(ended.starts_with("refused"), "{ended}");
}

#[test]
fn changing_the_mode_of_the_sandbox_s_executable() {
    let (ended, mode) = after_self_execution("expose-number");
    assert_eq!(mode, 0o755, "{ended}");
    assert!(ended.starts_with("refused"), "{ended}");
}
