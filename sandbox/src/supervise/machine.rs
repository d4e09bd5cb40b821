//! What a machine says of itself: names, memory and processors.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::{Call, KernelName, Reply, SuperviseError, Supervision, Tried, deliver};

/// The size of each text in a `utsname`.
const NAME: usize = 65;

/// Answers `uname`.
pub(crate) fn uname(call: &Call, kernel: &KernelName) -> Result<Reply, SuperviseError> {
    let real = rustix::system::uname();
    let names = [
        real.sysname().to_bytes(),
        real.nodename().to_bytes(),
        kernel.release.as_bytes(),
        kernel.version.as_bytes(),
        real.machine().to_bytes(),
        real.domainname().to_bytes(),
    ];
    let mut bytes = [0; NAME * 6];
    for (field, name) in bytes.chunks_mut(NAME).zip(names) {
        field
            .iter_mut()
            .zip(name.iter().take(NAME - 1))
            .for_each(|(to, from)| *to = *from);
    }
    let [address, ..] = call.arguments;
    deliver(call, address, &bytes, 0)
}

/// Answers `sysinfo`: 112 bytes, as in sysinfo(2).
pub(crate) fn sysinfo(call: &Call, supervision: &Supervision) -> Result<Reply, SuperviseError> {
    let real = rustix::system::sysinfo();
    let unit = u64::from(real.mem_unit.max(1));
    let total = supervision
        .memory_bytes
        .unwrap_or(real.totalram.saturating_mul(unit));
    let within = |amount: u64| amount.saturating_mul(unit).min(total / 2);
    let uptime =
        real.uptime.cast_unsigned() + supervision.uptime_ahead.map_or(0, |ahead| ahead.as_secs());
    let words = [uptime].into_iter().chain(real.loads).chain([
        total,
        within(real.freeram),
        within(real.sharedram),
        within(real.bufferram),
        real.totalswap.saturating_mul(unit),
        real.freeswap.saturating_mul(unit),
        real.procs.into(),
        real.totalhigh.saturating_mul(unit),
        real.freehigh.saturating_mul(unit),
        // The unit of all these is one byte.
        1,
    ]);
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let [address, ..] = call.arguments;
    deliver(call, address, &bytes, 0)
}

/// What programs are told about processors.
#[derive(Debug)]
pub(crate) struct Cores {
    told: NonZeroU16,
    /// The processors of a program that chose none.
    all: CpuSet,
}

impl Cores {
    /// Remembers which processors the run may use.
    pub(crate) fn new(
        told: NonZeroU16,
        request: Option<&BTreeSet<usize>>,
    ) -> Result<Self, SuperviseError> {
        const WHAT: &str = "read which processors may be used";
        let mut all = sched_getaffinity(Pid::from_raw(0)).tried(WHAT)?;
        if let Some(chosen) = request {
            for core in 0..CpuSet::count() {
                if !chosen.contains(&core) {
                    all.unset(core).tried(WHAT)?;
                }
            }
        }
        Ok(Self { told, all })
    }

    /// Answers `sched_getaffinity`.
    pub(crate) fn reply(&self, call: &Call) -> Result<Reply, SuperviseError> {
        // A program that chose processors is told of its choice.
        match sched_getaffinity(Pid::from_raw(call.thread)) {
            Ok(own) if own == self.all => {}
            _ => return Ok(Reply::Proceed),
        }
        let [_, room, address, ..] = call.arguments;
        let room = usize::try_from(room & 0xffff_ffff).unwrap_or(0);
        let told = usize::from(self.told.get());
        if room * 8 < told || room % 8 != 0 {
            return Ok(Reply::Error(libc::EINVAL));
        }
        let size = room.min(told.div_ceil(64) * 8);
        let mask: Vec<u8> = (0..size)
            .map(|byte| (0..8).fold(0, |bits, bit| bits | u8::from(byte * 8 + bit < told) << bit))
            .collect();
        let value = i64::try_from(size).unwrap_or(0);
        deliver(call, address, &mask, value)
    }
}
