//! The configuration of an OCI runtime
//! (<https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md>).

use serde_json::{Value, json};

use super::{Runtime, WRITABLE_BYTES};

/// Files of `/proc` and `/sys` that tell about the machine or let it be changed, and so are
/// not there.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];

/// Parts of `/proc` that cannot be written to.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Files that a process may have open at once.
const OPEN_FILES: u64 = 1024;

/// Returns the configuration of a bundle whose root is its directory `rootfs`, with the
/// filter of system calls if one is given.
pub fn config(runtime: &Runtime, seccomp: Option<&Value>) -> Value {
    let (user, group) = runtime.user;
    let namespaces =
        ["cgroup", "ipc", "mount", "network", "pid", "uts"].map(|kind| json!({ "type": kind }));
    let mut document = json!({
        "ociVersion": "1.0.2",
        "hostname": runtime.name,
        "root": { "path": "rootfs", "readonly": true },
        "process": {
            "terminal": false,
            "user": { "uid": user, "gid": group, "umask": 0o022 },
            "args": runtime.arguments,
            "env": runtime.environment,
            "cwd": runtime.working_directory,
            "capabilities": {
                "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [],
            },
            "noNewPrivileges": true,
            "rlimits": [
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
                { "type": "RLIMIT_NOFILE", "soft": OPEN_FILES, "hard": OPEN_FILES },
            ],
        },
        "mounts": mounts(runtime),
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
        },
    });
    if let (Some(seccomp), Some(linux)) = (
        seccomp,
        document.get_mut("linux").and_then(Value::as_object_mut),
    ) {
        linux.insert("seccomp".to_owned(), seccomp.clone());
    }
    document
}

fn mounts(runtime: &Runtime) -> Vec<Value> {
    let mount = |at: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": source, "options": options });
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
    ];
    let size = format!("size={WRITABLE_BYTES}");
    mounts.extend(runtime.writable.iter().map(|path| {
        let options = ["rw", "nosuid", "noexec", "nodev", "mode=1777", &size];
        mount(path, "tmpfs", "tmpfs", &options)
    }));
    mounts
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn a_bundle_of_everything() {
        let document = config(&example(), None);
        assert_eq!(document.pointer("/root/readonly"), Some(&json!(true)));
        assert_eq!(
            document.pointer("/process/noNewPrivileges"),
            Some(&json!(true))
        );
        assert_eq!(
            document.pointer("/process/args"),
            Some(&json!(["/bin/demo", "-x", "it's"]))
        );
        let sets = document.pointer("/process/capabilities").unwrap();
        assert_eq!(sets.as_object().unwrap().len(), 5);
        assert!(
            sets.as_object()
                .unwrap()
                .values()
                .all(|set| *set == json!([]))
        );
        let writable: Vec<&Value> = document["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|mount| mount["options"].as_array().unwrap().contains(&json!("rw")))
            .collect();
        assert_eq!(writable.len(), 2);
        for mount in writable {
            for option in ["nosuid", "noexec", "nodev"] {
                assert!(
                    mount["options"]
                        .as_array()
                        .unwrap()
                        .contains(&json!(option))
                );
            }
        }
        assert_eq!(document.pointer("/linux/seccomp"), None);
        let with = config(&example(), Some(&json!({ "defaultAction": "x" })));
        assert_eq!(
            with.pointer("/linux/seccomp/defaultAction"),
            Some(&json!("x"))
        );
    }
}
