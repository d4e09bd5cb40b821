//! Builds that want too much: each is ended or refused, and the host does not suffer.

use crate::attempt::{Place, Twin, run};

#[test]
fn a_log_without_end() {
    let place = Place::new();
    let mut request = place.request("chatter");
    request.limits.log_bytes = Some(1 << 20);
    let (ended, log) = run(&request);
    assert_eq!((ended.as_str(), log.len()), ("LogLimit", 1 << 20));
}

#[test]
fn a_sparse_file_of_100_gib() {
    let place = Place::new();
    place.try_twin("sparse {output}/file 100", Twin::SomeHosts);
    assert_eq!(place.inside("sparse {output}/long 100"), "worked");
    let mut request = place.request("sparse {output}/made 100");
    request.limits.file_bytes = Some(1 << 20);
    assert_eq!(run(&request).0, "refused EFBIG");
}

#[test]
fn a_file_that_fills_the_disk() {
    let place = Place::new();
    place.try_twin("fill {output}/file 4", Twin::Anyone);
    let mut request = place.request("fill {output}/made 4");
    request.limits.file_bytes = Some(1 << 20);
    assert_eq!(run(&request).0, "refused EFBIG");
    let size = |name| {
        std::fs::metadata(place.path("output").join(name))
            .unwrap()
            .len()
    };
    assert_eq!(size("made"), 1 << 20);
}

/// Processes that a bomb of these tests starts when nothing stops it.
const BOMB: u32 = 300;

fn bomb_is_refused() {
    let act = format!("bomb {BOMB}");
    let place = Place::new();
    place.try_twin(&act, Twin::Anyone);
    let mut request = place.request(&act);
    request.limits.processes = Some(64);
    assert_eq!(run(&request).0, "refused EAGAIN");
}

#[test]
fn a_fork_bomb() {
    if nix::unistd::geteuid().is_root() {
        return println!("the run of these tests as an ordinary user tries this");
    }
    bomb_is_refused();
}

#[test]
fn a_fork_bomb_in_root_s_sandbox() {
    bomb_is_refused();
}

/// What a build writes to `/tmp` is in memory.
#[test]
fn memory_by_way_of_a_temporary_file_system() {
    let place = Place::new();
    let number = |act: &str| -> u64 { run(&place.request(act)).1.trim().parse().unwrap() };
    let memory = String::from_utf8(place.command("memory").output().unwrap().stdout);
    let memory: u64 = memory.unwrap().trim().parse().unwrap();
    for path in ["/tmp", "/dev/shm"] {
        assert!(number(&format!("space {path}")) < memory / 4, "{path}");
    }
}
