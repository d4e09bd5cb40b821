//! The host's files, the inputs, and what the sandbox provides itself.

use std::os::unix::fs::{PermissionsExt, symlink};

use kiln_sandbox::{Access, Node};

use crate::attempt::{Place, Twin, refuses, run};
use crate::programs::{copy_program, programs};

/// What the other tests rely on: the same acts, allowed, do work inside.
#[test]
fn what_was_granted_works() {
    let place = Place::new();
    for act in [
        "read {input}/file",
        "list {input}",
        "create {output}/file",
        "make-executable {output}/file",
        "hard-link {output}/file {output}/second",
        "link-followed {output}/file {output}/third",
        "touch {output}/file",
        "shorten {output}/file",
        "map-for-writing {output}/file",
        "remove {output}/file",
        "mkdir {output}/directory",
        "mode chmod 755",
        "create /tmp/file",
        "write /dev/null",
    ] {
        assert_eq!(place.inside(act), "worked", "{act}");
    }
}

#[test]
fn reading_a_host_file() {
    refuses("read {host}/secret", Twin::Anyone, &["ENOENT"]);
}

#[test]
fn listing_a_host_directory() {
    refuses("list {host}", Twin::Anyone, &["ENOENT"]);
}

#[test]
fn reading_what_every_host_has() {
    refuses("read /etc/passwd", Twin::Anyone, &["ENOENT"]);
    refuses("list /sys/kernel", Twin::SomeHosts, &["ENOENT"]);
    refuses("list /home", Twin::SomeHosts, &["ENOENT"]);
}

#[test]
fn reading_the_host_s_shared_memory() {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    let act = format!("read {}", file.path().display());
    refuses(&act, Twin::Anyone, &["ENOENT"]);
}

#[test]
fn reaching_the_old_root_by_dots() {
    let dots = "/..".repeat(40);
    refuses(
        &format!("read {dots}{{host}}/secret"),
        Twin::Anyone,
        &["ENOENT"],
    );
    refuses("climb {host}/secret", Twin::Anyone, &["ENOENT"]);
}

#[test]
fn reaching_the_old_root_through_proc() {
    for link in ["/proc/self/root", "/proc/self/cwd/../../../../../.."] {
        refuses(
            &format!("read {link}{{host}}/secret"),
            Twin::Anyone,
            &["ENOENT"],
        );
    }
}

#[test]
fn following_a_link_of_an_input_to_the_host() {
    let place = Place::new();
    symlink(place.path("host"), place.path("input").join("way")).unwrap();
    place.refuses("read {input}/way/secret", Twin::Anyone, &["ENOENT"]);
}

#[test]
fn writing_to_an_input() {
    let act = |act: &str, twin| {
        let place = Place::new();
        place.refuses(act, twin, &["EROFS"]);
        let file = std::fs::read_to_string(place.path("input").join("file"));
        assert_eq!(file.unwrap(), "before\n");
    };
    for name in ["write", "shorten", "make-executable", "take", "touch"] {
        act(&format!("{name} {{input}}/file"), Twin::Anyone);
    }
    act("remove {input}/file", Twin::Anyone);
    act("create {input}/made", Twin::Anyone);
    act("mkdir {input}/made", Twin::Anyone);
    act("rename {input}/file {input}/made", Twin::Anyone);
    act("exchange {input}/file {input}/other", Twin::Anyone);
    act("reopen {input}/file", Twin::Anyone);
    act("map-for-writing {input}/file", Twin::Anyone);
}

#[test]
fn changing_an_input_through_a_hard_link() {
    for act in ["hard-link", "link-followed"] {
        let place = Place::new();
        place.refuses(
            &format!("{act} {{input}}/file {{output}}/made"),
            Twin::Anyone,
            &["EXDEV"],
        );
    }
    refuses(
        "hard-link {input}/file {input}/made",
        Twin::Anyone,
        &["EROFS"],
    );
    refuses(
        "rename {input}/file {output}/made",
        Twin::Anyone,
        &["EXDEV", "EROFS"],
    );
    refuses(
        "hard-link /proc/1/exe {output}/made",
        Twin::SomeHosts,
        &["EXDEV", "EACCES"],
    );
    refuses(
        "link-followed /proc/self/exe {output}/made",
        Twin::SomeHosts,
        &["EXDEV"],
    );
}

/// Returns how an act ends in a sandbox whose inputs lie where kiln puts them.
fn beside_the_store(act: &str) -> String {
    let place = Place::new();
    let mut request = place.request(act);
    request.nodes.push(Node::Directory {
        path: "/kiln/store".to_owned(),
    });
    request.nodes.push(Node::Bind {
        path: "/kiln/store/object".to_owned(),
        source: place.path("host"),
        access: Access::ReadOnly,
    });
    run(&request).0
}

#[test]
fn writing_to_the_store() {
    assert_eq!(beside_the_store("read /kiln/store/object/secret"), "worked");
    for act in [
        "create /kiln/store/new",
        "mkdir /kiln/store/new",
        "rename /kiln/store /kiln/other",
        "remove /kiln/store/object/secret",
        "write /kiln/store/object/secret",
    ] {
        assert_eq!(beside_the_store(act), "refused EROFS", "{act}");
    }
}

#[test]
fn writing_to_the_root() {
    // On the host this would leave something behind, so the twin is a directory that can
    // be written to.
    for act in ["create", "mkdir"] {
        refuses(&format!("{act} {{input}}/made"), Twin::Anyone, &["EROFS"]);
        for path in ["/made", "/dev/made", "/probe"] {
            let inside = Place::new().inside(&format!("{act} {path}"));
            assert!(
                ["refused EROFS", "refused EEXIST"].contains(&inside.as_str()),
                "{act} {path}: {inside}"
            );
        }
    }
    assert_eq!(Place::new().inside("remove /probe"), "refused EROFS");
    assert_eq!(Place::new().inside("rename /probe /other"), "refused EROFS");
}

#[test]
fn changing_the_host_s_devices() {
    for device in ["null", "zero", "full", "random", "urandom"] {
        for act in ["keep-mode", "take", "touch", "remove"] {
            let inside = Place::new().inside(&format!("{act} /dev/{device}"));
            assert_eq!(inside, "refused EROFS", "{act} {device}");
        }
    }
    refuses("take /dev/null", Twin::Root, &["EROFS"]);
}

#[test]
fn changing_kernel_settings() {
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/net/ipv4/ip_forward",
    ] {
        refuses(&format!("write {path}"), Twin::Root, &["EROFS", "EACCES"]);
    }
    refuses(
        "write /proc/sysrq-trigger",
        Twin::SomeHosts,
        &["EROFS", "EACCES", "ENOENT"],
    );
    for path in ["oom_score_adj", "uid_map", "attr/current", "clear_refs"] {
        refuses(
            &format!("write /proc/self/{path}"),
            Twin::SomeHosts,
            &["EROFS", "EACCES", "ENOENT"],
        );
    }
}

/// What lies over entries of `/proc` belongs to the build's user.
#[test]
fn changing_what_covers_an_entry_of_proc() {
    let place = Place::new();
    for act in ["make-executable", "touch"] {
        place.try_twin(&format!("{act} {{host}}/secret"), Twin::Anyone);
        for path in ["bus", "cpuinfo", "kcore", "modules", "uptime", "version"] {
            let inside = place.inside(&format!("{act} /proc/{path}"));
            let refused = ["refused EROFS", "refused ENOENT"];
            assert!(refused.contains(&inside.as_str()), "{act} {path}: {inside}");
        }
    }
}

#[test]
fn reading_the_kernel_s_memory_and_log() {
    for path in ["/proc/kcore", "/proc/kmsg"] {
        refuses(
            &format!("read {path}"),
            Twin::SomeHosts,
            &["EACCES", "EPERM", "ENOENT", "ENXIO"],
        );
    }
    for path in [
        "/dev/kmsg",
        "/dev/mem",
        "/dev/kvm",
        "/dev/fuse",
        "/dev/ptmx",
        "/dev/tty",
    ] {
        refuses(&format!("read {path}"), Twin::SomeHosts, &["ENOENT"]);
    }
}

#[test]
fn opening_a_device_that_an_input_holds() {
    if !nix::unistd::geteuid().is_root() {
        return println!("only root can make a device outside");
    }
    let place = Place::new();
    let made = place.outside("device c {input}/device");
    assert_eq!(made, "worked");
    place.refuses("read {input}/device", Twin::Root, &["EACCES"]);
}

#[test]
fn gaining_a_user_from_a_setuid_program_in_an_input() {
    if !nix::unistd::geteuid().is_root() {
        return println!("only root can give a program to another user outside");
    }
    let place = Place::new();
    let program = place.path("input").join("program");
    copy_program(&programs().probe, &program);
    std::os::unix::fs::chown(&program, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o6755)).unwrap();
    let outside = std::process::Command::new(&program).arg("user").output();
    assert_eq!(outside.unwrap().stdout, b"65534:65534\n");
    let mut request = place.request("user");
    request.command[0] = "/input/program".to_owned();
    assert_eq!(run(&request).1, "1000:100\n");
}

#[test]
fn setting_an_extended_attribute() {
    for name in ["user.x", "security.capability", "trusted.x"] {
        let act = format!("set-attribute {{output}} {name}");
        refuses(&act, Twin::SomeHosts, &["EOPNOTSUPP", "ENOTSUP"]);
    }
    refuses(
        "set-attribute {output} user.x",
        Twin::Anyone,
        &["EOPNOTSUPP", "ENOTSUP"],
    );
    refuses("set-attribute-at {output}", Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn setting_an_access_list() {
    refuses("set-acl {output}", Twin::Anyone, &["EOPNOTSUPP", "ENOTSUP"]);
}

/// Such a file could not be deleted with the rest of a build.
#[test]
fn making_a_file_immutable() {
    refuses("make-immutable .", Twin::Root, &["EPERM"]);
}
