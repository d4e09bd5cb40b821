//! Descriptors and working directories that a careless caller leaves open.

use std::fs::File;
use std::os::fd::AsRawFd;

use kiln_sandbox::SandboxError;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::attempt::{Place, Twin, try_run};

/// Opens a directory in such a way that every program this process starts has it too.
fn leak(place: &Place) -> File {
    let directory = File::open(place.path("host")).unwrap();
    fcntl(&directory, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    directory
}

#[test]
fn an_inherited_directory() {
    let place = Place::new();
    let _directory = leak(&place);
    place.refuses("through-descriptors secret", Twin::Anyone, &["EBADF"]);
    place.refuses(
        "through-descriptors ../host/secret",
        Twin::Anyone,
        &["EBADF"],
    );
}

/// The mechanism of CVE-2024-21626: starting in a directory that a descriptor names.
#[test]
fn a_working_directory_that_a_descriptor_names() {
    let place = Place::new();
    let directory = leak(&place);
    let number = directory.as_raw_fd();
    let mut outside = place.command("beside-start secret");
    outside.current_dir(format!("/proc/self/fd/{number}"));
    assert!(outside.status().unwrap().success());
    for number in 0..32 {
        let mut request = place.request("beside-start secret");
        request.working_directory = format!("/proc/self/fd/{number}");
        match try_run(&request) {
            Err(SandboxError::Step { step, .. }) => {
                assert_eq!(
                    step,
                    format!("enter the working directory `/proc/self/fd/{number}`")
                );
            }
            other => panic!("descriptor {number}: {other:?}"),
        }
    }
}

/// A relative path that leads to the host from where the caller stands.
#[test]
fn the_caller_s_working_directory() {
    let place = Place::new();
    place.refuses("beside-start ../host/secret", Twin::Anyone, &["ENOENT"]);
    let mut request = place.request("beside-start ../host/secret");
    "/".clone_into(&mut request.working_directory);
    assert_eq!(crate::attempt::run(&request).0, "refused ENOENT");
}
