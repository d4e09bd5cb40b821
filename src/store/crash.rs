//! Named points at which a test can end the process as a power cut or `kill -9` would, or
//! stop it while another process does something.
//!
//! In a build with debug assertions, `KILN_CRASH_AT=NAME` or `KILN_CRASH_AT=NAME#N` kills
//! the process when it passes the point for the first or N-th time, `KILN_STOP_AT` stops
//! it in the same way until it gets SIGCONT, and `KILN_CRASH_POINTS=FILE` writes down each
//! point that is passed. A release build does nothing here.

/// Marks a point of a change to the store.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    use std::io::Write as _;
    use std::sync::atomic::AtomicUsize;

    use rustix::process::Signal;

    static KILLED: AtomicUsize = AtomicUsize::new(0);
    static STOPPED: AtomicUsize = AtomicUsize::new(0);
    if let Some(file) = std::env::var_os("KILN_CRASH_POINTS") {
        let written = std::fs::File::options()
            .append(true)
            .create(true)
            .open(file)
            // At once: threads pass points at the same time.
            .and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
        written.expect("the file of crash points can be written");
    }
    // Nothing runs after a kill: no destructor, no handler, no flush.
    signal_at(name, "KILN_CRASH_AT", &KILLED, Signal::KILL);
    signal_at(name, "KILN_STOP_AT", &STOPPED, Signal::STOP);
}

#[cfg(debug_assertions)]
fn signal_at(
    name: &str,
    variable: &str,
    passed: &std::sync::atomic::AtomicUsize,
    signal: rustix::process::Signal,
) {
    let Ok(wanted) = std::env::var(variable) else {
        return;
    };
    let (wanted, count) = match wanted.rsplit_once('#') {
        Some((wanted, count)) => (wanted, count.parse().unwrap_or(1)),
        None => (wanted.as_str(), 1),
    };
    if wanted == name && passed.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == count {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, signal).expect("a process can signal itself");
        // Another thread may be the one that takes it.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Marks a point of a change to the store.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn point(_name: &str) {}
