//! Named points at which a test can end the process as a power cut or `kill -9` would.
//!
//! In a build with debug assertions, `KILN_CRASH_AT=NAME` or `KILN_CRASH_AT=NAME#N` kills
//! the process when it passes the point for the first or N-th time, and
//! `KILN_CRASH_POINTS=FILE` writes down each point that is passed. A release build does
//! nothing here.

/// Marks a point of a change to the store.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    if let Some(file) = std::env::var_os("KILN_CRASH_POINTS") {
        let written = std::fs::File::options()
            .append(true)
            .create(true)
            .open(file)
            // At once: threads pass points at the same time.
            .and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
        written.expect("the file of crash points can be written");
    }
    let Ok(wanted) = std::env::var("KILN_CRASH_AT") else {
        return;
    };
    let (wanted, count) = match wanted.rsplit_once('#') {
        Some((wanted, count)) => (wanted, count.parse().unwrap_or(1)),
        None => (wanted.as_str(), 1),
    };
    if wanted == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == count {
        let own = rustix::process::getpid();
        // Nothing runs after this: no destructor, no handler, no flush.
        rustix::process::kill_process(own, rustix::process::Signal::KILL).expect("to end");
    }
}

/// Marks a point of a change to the store.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn point(_name: &str) {}
