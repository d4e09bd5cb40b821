//! Ends runs from another thread.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Ends runs early; clones share one state.
#[derive(Debug, Clone)]
pub struct Cancel {
    shared: Arc<CancelState>,
}

#[derive(Debug)]
struct CancelState {
    /// Readable for ever once the writer is gone.
    reader: PipeReader,
    writer: Mutex<Option<PipeWriter>>,
}

impl Cancel {
    /// Makes one that is not cancelled.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            shared: Arc::new(CancelState {
                reader,
                writer: Mutex::new(Some(writer)),
            }),
        })
    }

    /// Ends every run that shares this, now and in the future.
    pub fn cancel(&self) {
        self.shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Returns what becomes readable when it is cancelled.
    pub(crate) fn signal(&self) -> BorrowedFd<'_> {
        self.shared.reader.as_fd()
    }

    /// Returns whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }
}
