//! The threads that compress, for all layers together: as many as there are processors.
//!
//! However many layers are made at once, no more blocks are under way than keep all threads
//! busy while finished ones wait for those before them.

use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};

use super::compress::Compressor;
use crate::derivation::Compression;
use crate::hash::copy::Block;

/// What becomes of a block, and the leave to have it under way.
type Packed = (io::Result<Vec<u8>>, Leave);

/// A block on its way; [`Pending::wait`] gives what became of it.
pub(super) struct Pending(Receiver<Packed>);

impl Pending {
    /// Waits for the compressed block.
    pub(super) fn wait(self) -> io::Result<(Vec<u8>, Leave)> {
        let ended = |_| io::Error::other("a thread ended early");
        let (packed, leave) = self.0.recv().map_err(ended)?;
        packed.map(|packed| (packed, leave))
    }
}

struct Job {
    compression: Compression,
    block: Arc<Block>,
    leave: Leave,
    put: SyncSender<Packed>,
}

/// Hands a block to the threads; waits while too many are under way.
pub(super) fn submit(compression: Compression, block: Arc<Block>) -> io::Result<Pending> {
    let leave = Leave::take();
    let (put, result) = sync_channel(1);
    let job = Job {
        compression,
        block,
        leave,
        put,
    };
    let jobs = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.send(job)
        .map_err(|_| io::Error::other("no thread to compress with could be started"))?;
    Ok(Pending(result))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

static POOL: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (give, taken) = channel();
    let taken = Arc::new(Mutex::new(taken));
    for number in 0..threads() {
        let taken = Arc::clone(&taken);
        let thread = std::thread::Builder::new().name(format!("compress {number}"));
        // With fewer it takes longer; without any, nothing can be sent.
        drop(thread.spawn(move || work(&taken)));
    }
    Mutex::new(give)
});

/// Compresses blocks for as long as the process runs.
fn work(jobs: &Mutex<Receiver<Job>>) {
    let mut kept: Option<(Compression, Compressor)> = None;
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        let packed = catch_unwind(AssertUnwindSafe(|| compress(&mut kept, &job)));
        let packed = packed.unwrap_or_else(|_| {
            kept = None;
            Err(io::Error::other("a compressor failed"))
        });
        // Who waited may have stopped at an error.
        drop(job.put.send((packed, job.leave)));
    }
}

fn compress(kept: &mut Option<(Compression, Compressor)>, job: &Job) -> io::Result<Vec<u8>> {
    if kept.as_ref().is_none_or(|(of, _)| *of != job.compression) {
        *kept = Some((job.compression, Compressor::new(job.compression)?));
    }
    match kept {
        Some((_, compressor)) => compressor.compress(&job.block),
        None => Ok(Vec::new()),
    }
}

/// The leave to have one block under way, until it is written.
#[derive(Debug)]
pub(super) struct Leave(());

static UNDER_WAY: Mutex<usize> = Mutex::new(0);
static FEWER: Condvar = Condvar::new();

impl Leave {
    fn take() -> Self {
        let most = 3 * threads();
        let count = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = FEWER.wait_while(count, |count| *count >= most);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        *UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FEWER.notify_one();
    }
}
