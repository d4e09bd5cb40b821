//! A tar in blocks, each read where it is hashed and where it is compressed.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::hash::copy::Block;
use crate::image::layer::Sink;

/// Cuts what is written into blocks.
#[derive(Debug)]
pub struct Blocks {
    block: Block,
    /// Blocks that were sent, to be used again when both threads are done with them.
    sent: VecDeque<Arc<Block>>,
    to: [SyncSender<Arc<Block>>; 2],
}

impl Blocks {
    /// Cuts into blocks of a length, in bytes, and sends each to both.
    pub(super) fn new(length: usize, to: [SyncSender<Arc<Block>>; 2]) -> Self {
        Self {
            block: Block::new(length),
            sent: VecDeque::new(),
            to,
        }
    }

    /// Sends what has gathered.
    pub(super) fn send(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let fresh = self.fresh();
        let block = Arc::new(std::mem::replace(&mut self.block, fresh));
        self.sent.push_back(Arc::clone(&block));
        for to in &self.to {
            to.send(Arc::clone(&block))
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(())
    }

    fn fresh(&mut self) -> Block {
        match self.sent.pop_front().map(Arc::try_unwrap) {
            None => Block::new(self.block.capacity()),
            Some(Ok(mut block)) => {
                block.clear();
                block
            }
            Some(Err(in_use)) => {
                self.sent.push_front(in_use);
                Block::new(self.block.capacity())
            }
        }
    }

    /// Notes that so many bytes of the free part were filled.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        self.block.fill(count);
        if self.block.is_full() {
            self.send()?;
        }
        Ok(())
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // As much as there is room for.
        let mut from = bytes;
        let count = from.read(self.block.free())?;
        self.fill(count)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Blocks {
    /// Reads straight into the blocks.
    fn write_from(&mut self, from: &mut impl Read) -> io::Result<u64> {
        let mut written = 0;
        loop {
            match from.read(self.block.free()) {
                Ok(0) => return Ok(written),
                Ok(count) => {
                    self.fill(count)?;
                    written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
