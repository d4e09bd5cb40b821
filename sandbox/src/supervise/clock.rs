//! Shifted clocks, and the calls that wait for one.

use std::time::Duration;

use nix::libc;
use nix::time::ClockId;

use super::{Call, Reply, SuperviseError, deliver, sys, unreachable_memory};

/// `CLOCK_REALTIME`, its coarse and its alarm form, and `CLOCK_TAI`.
pub(crate) const CLOCKS: [u64; 4] = [0, 5, 8, 11];

/// Where a call is told a time to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Absolute {
    /// The argument that points to the structure.
    pub argument: usize,
    /// The structure's size.
    pub size: usize,
    /// Where the time stands in it.
    pub time_at: usize,
}

const fn timespec(argument: usize) -> Absolute {
    Absolute {
        argument,
        size: 16,
        time_at: 0,
    }
}

/// An `itimerspec`: the interval comes first.
const fn itimerspec(argument: usize) -> Absolute {
    Absolute {
        argument,
        size: 32,
        time_at: 16,
    }
}

/// The calls that can wait for an absolute time of the wall clock.
pub(crate) const ABSOLUTE: [(i64, Absolute); 7] = [
    (libc::SYS_clock_nanosleep, timespec(2)),
    (libc::SYS_futex, timespec(3)),
    (libc::SYS_futex_waitv, timespec(3)),
    (libc::SYS_mq_timedsend, timespec(4)),
    (libc::SYS_mq_timedreceive, timespec(4)),
    (libc::SYS_timerfd_settime, itimerspec(2)),
    (libc::SYS_timer_settime, itimerspec(2)),
];

/// Times before this, in seconds, are left alone: a timer does not say which clock it is of.
/// On the wall clock they are past with and without the shift; on a monotonic one, no
/// machine has been up for the thirty years after which they come.
const LEAST_SECONDS: i64 = 1_000_000_000;

/// Answers a call about the wall clock.
pub(crate) fn reply(call: &Call, ahead: Duration) -> Result<Reply, SuperviseError> {
    let [first, second, ..] = call.arguments;
    match call.number {
        libc::SYS_clock_gettime => match now(first, ahead) {
            Ok(now) => deliver(call, second, &timespec_bytes(now), 0),
            Err(errno) => Ok(Reply::Error(errno as i32)),
        },
        libc::SYS_time => match now(5, ahead) {
            Ok((seconds, _)) if first == 0 => Ok(Reply::Value(seconds)),
            Ok((seconds, _)) => deliver(call, first, &seconds.to_le_bytes(), seconds),
            Err(errno) => Ok(Reply::Error(errno as i32)),
        },
        libc::SYS_gettimeofday => match now(0, ahead) {
            Ok((seconds, nanos)) => time_of_day(call, (seconds, nanos / 1000)),
            Err(errno) => Ok(Reply::Error(errno as i32)),
        },
        number => match ABSOLUTE.iter().find(|(absolute, _)| *absolute == number) {
            Some((_, absolute)) => wait(call, *absolute),
            None => Ok(Reply::Proceed),
        },
    }
}

fn time_of_day(call: &Call, time: (i64, i64)) -> Result<Reply, SuperviseError> {
    let [time_at, zone_at, ..] = call.arguments;
    if time_at != 0 {
        let told = deliver(call, time_at, &timespec_bytes(time), 0)?;
        if !matches!(told, Reply::Value(_)) {
            return Ok(told);
        }
    }
    if zone_at != 0 {
        return deliver(call, zone_at, &[0; 8], 0);
    }
    Ok(Reply::Value(0))
}

/// Decides whether a wait needs another time.
fn wait(call: &Call, absolute: Absolute) -> Result<Reply, SuperviseError> {
    match read_time(call, absolute) {
        Ok((_, (seconds, _))) if seconds < LEAST_SECONDS => Ok(Reply::Proceed),
        Ok(_) => Ok(Reply::Repeat(absolute)),
        Err(error) => match unreachable_memory(error)? {
            // The kernel finds out the same.
            Reply::Error(_) => Ok(Reply::Proceed),
            other => Ok(other),
        },
    }
}

fn read_time(call: &Call, absolute: Absolute) -> std::io::Result<(Vec<u8>, (i64, i64))> {
    let address = call.arguments.get(absolute.argument).copied().unwrap_or(0);
    let mut structure = vec![0; absolute.size];
    sys::read_exactly(call.thread, address, &mut structure)?;
    let word = |at: usize| {
        structure
            .get(at..)
            .and_then(|bytes| bytes.first_chunk::<8>())
            .map_or(0, |bytes| i64::from_le_bytes(*bytes))
    };
    let time = (word(absolute.time_at), word(absolute.time_at + 8));
    Ok((structure, time))
}

/// Returns the structure that a wait is repeated with.
pub(crate) fn shifted_back(
    call: &Call,
    absolute: Absolute,
    ahead: Duration,
) -> std::io::Result<Vec<u8>> {
    let (mut structure, time) = read_time(call, absolute)?;
    // An invalid number of nanoseconds stays one.
    if (0..1_000_000_000).contains(&time.1) {
        let time = back(time, ahead);
        if let Some(told) = structure.get_mut(absolute.time_at..absolute.time_at + 16) {
            told.copy_from_slice(&timespec_bytes(time));
        }
    }
    Ok(structure)
}

/// Returns a time as the host's clock says it; never zero, which would disarm a timer.
fn back((seconds, nanos): (i64, i64), ahead: Duration) -> (i64, i64) {
    let shift = i128::try_from(ahead.as_nanos()).unwrap_or(i128::MAX);
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos) - shift;
    split(total.max(1))
}

fn split(nanos: i128) -> (i64, i64) {
    let part = |value: i128| i64::try_from(value).unwrap_or(i64::MAX);
    (
        part(nanos.div_euclid(1_000_000_000)),
        part(nanos.rem_euclid(1_000_000_000)),
    )
}

fn now(clock: u64, ahead: Duration) -> Result<(i64, i64), nix::errno::Errno> {
    let clock = i32::try_from(clock & 0xffff_ffff).unwrap_or(-1);
    let time = nix::time::clock_gettime(ClockId::from_raw(clock))?;
    let shift = i128::try_from(ahead.as_nanos()).unwrap_or(0);
    let total = i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec());
    Ok(split(total + shift))
}

fn timespec_bytes((seconds, fraction): (i64, i64)) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&seconds.to_le_bytes());
    second.copy_from_slice(&fraction.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_goes_back_as_far_as_the_clock_went_ahead() {
        let ahead = Duration::new(100, 900_000_000);
        assert_eq!(
            back((1_700_000_000, 100_000_000), ahead),
            (1_699_999_899, 200_000_000)
        );
        // Past the epoch: the earliest time that a timer takes for one.
        assert_eq!(back((50, 0), ahead), (0, 1));
    }
}
