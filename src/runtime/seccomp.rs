//! A filter that lets some system calls through, in the form that OCI runtimes, Podman,
//! Docker and Kubernetes read.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use syscalls::x86_64::Sysno;

/// The largest number that is known; a call with a larger one fails in every kernel.
pub const LAST: u32 = 511;

/// Calls that the runtime itself makes after it has installed the filter, to start the
/// program and to check on it.
const OF_THE_RUNTIME: [Sysno; 14] = [
    Sysno::capget,
    Sysno::capset,
    Sysno::chdir,
    Sysno::close,
    Sysno::execve,
    Sysno::exit_group,
    Sysno::fstat,
    Sysno::fstatfs,
    Sysno::futex,
    Sysno::newfstatat,
    Sysno::openat,
    Sysno::prctl,
    Sysno::read,
    Sysno::write,
];

/// Calls that no container needs and that reach far into the kernel: they are in no filter
/// that rests on what programs usually do. What a program's code is seen to make is in its
/// filter all the same, and without capabilities most of it fails.
const NEVER: [Sysno; 52] = [
    Sysno::_sysctl,
    Sysno::acct,
    Sysno::add_key,
    Sysno::adjtimex,
    Sysno::bpf,
    Sysno::clock_adjtime,
    Sysno::clock_settime,
    Sysno::create_module,
    Sysno::delete_module,
    Sysno::finit_module,
    Sysno::fsconfig,
    Sysno::fsmount,
    Sysno::fsopen,
    Sysno::fspick,
    Sysno::get_kernel_syms,
    Sysno::init_module,
    Sysno::io_uring_enter,
    Sysno::io_uring_register,
    Sysno::io_uring_setup,
    Sysno::ioperm,
    Sysno::iopl,
    Sysno::kcmp,
    Sysno::kexec_file_load,
    Sysno::kexec_load,
    Sysno::keyctl,
    Sysno::lookup_dcookie,
    Sysno::mount,
    Sysno::mount_setattr,
    Sysno::move_mount,
    Sysno::move_pages,
    Sysno::name_to_handle_at,
    Sysno::nfsservctl,
    Sysno::open_by_handle_at,
    Sysno::open_tree,
    Sysno::perf_event_open,
    Sysno::pivot_root,
    Sysno::process_vm_readv,
    Sysno::process_vm_writev,
    Sysno::ptrace,
    Sysno::query_module,
    Sysno::quotactl,
    Sysno::reboot,
    Sysno::request_key,
    Sysno::setdomainname,
    Sysno::sethostname,
    Sysno::setns,
    Sysno::settimeofday,
    Sysno::swapoff,
    Sysno::swapon,
    Sysno::umount2,
    Sysno::unshare,
    Sysno::userfaultfd,
];

/// Returns every call that programs usually may make: what stands in for a program whose own
/// calls cannot be told.
pub fn usual() -> BTreeSet<u32> {
    let never: BTreeSet<u32> = NEVER.iter().map(|call| call.id().unsigned_abs()).collect();
    (0..=LAST)
        .filter(|number| Sysno::new(*number as usize).is_some() && !never.contains(number))
        .collect()
}

/// Returns the filter that lets calls through, and those of the runtime. Every other one
/// fails as if the kernel did not have it.
pub fn profile(calls: &BTreeSet<u32>) -> Value {
    let mut names: BTreeSet<&str> = OF_THE_RUNTIME.iter().map(Sysno::name).collect();
    names.extend(calls.iter().filter_map(|number| name(*number)));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
    })
}

/// The error of a call that the kernel does not have.
const ENOSYS: u32 = 38;

/// Returns the name of a call.
pub fn name(number: u32) -> Option<&'static str> {
    Some(Sysno::new(number as usize)?.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_its_calls_and_those_of_the_runtime() {
        let profile = profile(&BTreeSet::from([1, 41, 100_000]));
        let names = profile.pointer("/syscalls/0/names").unwrap();
        let names = names.as_array().unwrap();
        assert!(names.contains(&json!("socket")));
        assert!(names.contains(&json!("execve")));
        assert_eq!(names.len(), OF_THE_RUNTIME.len() + 1);
        assert_eq!(profile["defaultErrnoRet"], json!(38));
    }

    #[test]
    fn what_reaches_into_the_kernel_is_not_usual() {
        let usual = usual();
        assert!(usual.contains(&0) && usual.len() > 250, "{}", usual.len());
        for call in NEVER {
            assert!(!usual.contains(&(call.id().unsigned_abs())), "{call}");
        }
    }
}
