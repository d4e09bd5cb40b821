//! What a build could learn of the machine that runs it.
//!
//! What is not hidden yet is a test that is ignored, with the reason.

use std::collections::BTreeSet;

use kiln_sandbox::SandboxRequest;

use crate::attempt::{Place, run};

/// Returns what the host tells.
fn told_outside(act: &str) -> String {
    let output = Place::new().command(act).output().unwrap();
    assert!(output.status.success(), "`{act}` outside: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns what the sandbox tells.
fn told_inside(act: &str, change: impl FnOnce(&mut SandboxRequest)) -> String {
    let place = Place::new();
    let mut request = place.request(act);
    change(&mut request);
    run(&request).1
}

/// Asserts that the sandbox says something else than the host, or nothing.
fn hides(act: &str) {
    let outside = told_outside(act);
    let inside = told_inside(act, |_| {});
    assert_ne!(outside, inside, "`{act}`");
}

#[test]
fn the_host_s_name() {
    let chosen = |request: &mut SandboxRequest| "chosen".clone_into(&mut request.host_name);
    for act in ["host-name", "content /proc/sys/kernel/hostname"] {
        assert_ne!(told_outside(act), "chosen\n");
        assert_eq!(told_inside(act, chosen), "chosen\n", "{act}");
    }
    let domain = told_inside("content /proc/sys/kernel/domainname", |_| {});
    assert_eq!(domain, "(none)\n");
}

#[test]
fn the_caller_s_user() {
    assert_eq!(told_inside("user", |_| {}), "1000:100\n");
    let other = told_inside("user", |request| (request.uid, request.gid) = (0, 4242));
    assert_eq!(other, "0:4242\n");
    for path in ["/etc/passwd", "/etc/group"] {
        hides(&format!("content {path}"));
    }
}

#[test]
fn the_machine_s_identity() {
    for path in [
        "/etc/machine-id",
        "/etc/hostname",
        "/sys/class/dmi/id/board_name",
    ] {
        let inside = told_inside(&format!("content {path}"), |_| {});
        assert_eq!(inside, "refused ENOENT\n", "{path}");
    }
}

#[test]
fn the_boot_s_identity() {
    hides("content /proc/sys/kernel/random/boot_id");
}

#[test]
fn the_uptime() {
    for act in ["uptime", "monotonic", "uptime-of-sysinfo"] {
        let seconds = |text: String| text.trim().parse::<u64>().unwrap();
        let before = seconds(told_outside(act));
        let inside = seconds(told_inside(act, |_| {}));
        // A clock that started with the build cannot have caught up with the machine's.
        assert!(inside < before, "`{act}`: {inside}, outside {before}");
    }
}

#[test]
fn the_cores_that_a_build_may_use() {
    let one = |request: &mut SandboxRequest| request.cores = Some(BTreeSet::from([0]));
    assert_eq!(told_inside("cores", one), "1\n");
}

#[test]
fn the_number_of_cores() {
    for path in ["/proc/cpuinfo", "/proc/stat"] {
        let inside = told_inside(&format!("content {path}"), |request| {
            request.cores = Some(BTreeSet::from([0]));
        });
        let count = |text: &str| {
            text.lines()
                .filter(|line| {
                    line.starts_with("processor")
                        || line
                            .strip_prefix("cpu")
                            .is_some_and(|rest| !rest.starts_with(' '))
                })
                .count()
        };
        assert!(count(&told_outside(&format!("content {path}"))) > 0);
        assert!(count(&inside) <= 1, "{path}");
    }
}

#[test]
#[ignore = "not hidden: `sysinfo` and `/proc/meminfo` are the host's"]
fn the_size_of_memory() {
    let total = |text: String| text.lines().next().unwrap_or_default().to_owned();
    for act in ["memory", "content /proc/meminfo"] {
        let inside = total(told_inside(act, |_| {}));
        assert_ne!(total(told_outside(act)), inside, "{act}");
    }
}

#[test]
#[ignore = "not hidden: `uname` and `/proc/version` are the host's"]
fn the_kernel_s_release() {
    hides("kernel-release");
    hides("content /proc/version");
    hides("content /proc/sys/kernel/osrelease");
}

#[test]
fn the_kernel_s_command_line() {
    hides("content /proc/cmdline");
}

#[test]
fn the_machine_s_disks_and_modules() {
    for path in ["partitions", "diskstats", "modules", "interrupts", "swaps"] {
        let text = told_inside(&format!("content /proc/{path}"), |_| {});
        assert!(
            text.is_empty() || text.starts_with("refused "),
            "{path}: {text}"
        );
    }
}

#[test]
#[ignore = "not hidden: `/proc/self/mountinfo` names the source of each mount"]
fn where_the_inputs_lie_on_the_host() {
    let place = Place::new();
    let input = place.path("input");
    let name = input
        .parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap();
    for path in ["mountinfo", "mounts", "mountstats"] {
        let (_, text) = run(&place.request(&format!("content /proc/self/{path}")));
        assert!(!text.contains(name), "{path}: {text}");
    }
}

#[test]
fn the_caller_s_control_groups() {
    let text = told_inside("content /proc/self/cgroup", |_| {});
    assert!(text.lines().all(|line| line.ends_with(":/")), "{text}");
}
