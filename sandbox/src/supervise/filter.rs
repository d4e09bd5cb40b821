//! PURE: which calls a request's knobs ask about, as a filter.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::Supervision;
use super::clock::{ABSOLUTE, CLOCKS};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Returns the filter that asks the supervisor, and allows everything else.
pub(crate) fn program(supervision: &Supervision) -> Result<BpfProgram, BackendError> {
    // The library knows no notification: the filter is compiled with another action that
    // nothing else uses, and the action is then replaced.
    const PLACEHOLDER: u16 = 0x6b69;
    let asked = SeccompAction::Trace(PLACEHOLDER.into());
    let rules = rules(supervision)?;
    let mut program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, asked, TargetArch::x86_64)?.try_into()?;
    const RETURN: u16 = 0x06;
    for instruction in &mut program {
        let placeholder = libc::SECCOMP_RET_TRACE | u32::from(PLACEHOLDER);
        if instruction.code == RETURN && instruction.k == placeholder {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    Ok(program)
}

fn rules(supervision: &Supervision) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    let mut always = |calls: &[i64]| {
        for call in calls {
            rules.insert(*call, Vec::new());
        }
    };
    if supervision.hides_vdso() {
        always(&[libc::SYS_execve, libc::SYS_execveat]);
    }
    if supervision.kernel.is_some() {
        always(&[libc::SYS_uname]);
    }
    if supervision.memory_bytes.is_some() || supervision.uptime_ahead.is_some() {
        always(&[libc::SYS_sysinfo]);
    }
    if supervision.cores.is_some() {
        always(&[libc::SYS_sched_getaffinity]);
    }
    if supervision.random_seed.is_some() {
        always(&[libc::SYS_getrandom]);
    }
    if supervision.directory_order.is_some() {
        always(&[libc::SYS_getdents64, libc::SYS_getdents]);
    }
    if supervision.clock_ahead.is_some() {
        always(&[libc::SYS_gettimeofday, libc::SYS_time]);
        add_clocks(&mut rules)?;
    }
    Ok(rules)
}

fn add_clocks(rules: &mut Rules) -> Result<(), BackendError> {
    let mut add = |call: i64, conditions: Vec<SeccompCondition>| -> Result<(), BackendError> {
        let rule = SeccompRule::new(conditions)?;
        rules.entry(call).or_default().push(rule);
        Ok(())
    };
    for clock in CLOCKS {
        add(libc::SYS_clock_gettime, vec![equals(0, clock)?])?;
        // TIMER_ABSTIME is 1.
        add(
            libc::SYS_clock_nanosleep,
            vec![equals(0, clock)?, masked(1, 1, 1)?, given(2)?],
        )?;
        add(libc::SYS_futex_waitv, vec![equals(4, clock)?, given(3)?])?;
    }
    for call in [libc::SYS_timerfd_settime, libc::SYS_timer_settime] {
        add(call, vec![masked(1, 1, 1)?, given(2)?])?;
    }
    for call in [libc::SYS_mq_timedsend, libc::SYS_mq_timedreceive] {
        add(call, vec![given(4)?])?;
    }
    // FUTEX_LOCK_PI (6) knows no other clock; FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI and
    // FUTEX_LOCK_PI2 are told which.
    const REAL: u64 = 0x100;
    const OPERATION: u64 = 0x7f | REAL;
    for operation in [6, 0x106, 0x109, 0x10b, 0x10d] {
        add(
            libc::SYS_futex,
            vec![masked(1, OPERATION, operation)?, given(3)?],
        )?;
    }
    debug_assert!(ABSOLUTE.iter().all(|(call, _)| rules.contains_key(call)));
    Ok(())
}

fn equals(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    let operation = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)
}

/// A pointer that is not null.
fn given(argument: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_what_is_varied_is_asked() {
        let asked = |supervision: &Supervision| -> Vec<i64> {
            rules(supervision).unwrap().into_keys().collect()
        };
        assert!(asked(&Supervision::default()).is_empty());
        let seeded = Supervision {
            random_seed: Some([0; 32]),
            ..Supervision::default()
        };
        assert_eq!(
            asked(&seeded),
            [libc::SYS_execve, libc::SYS_getrandom, libc::SYS_execveat]
        );
        let ahead = Supervision {
            clock_ahead: Some(Duration::from_secs(1)),
            ..Supervision::default()
        };
        assert!(asked(&ahead).contains(&libc::SYS_futex));
        let program = program(&ahead).unwrap();
        let notifies = |k: u32| program.iter().any(|i| i.code == 0x06 && i.k == k);
        assert!(notifies(libc::SECCOMP_RET_USER_NOTIF));
        assert!(!notifies(libc::SECCOMP_RET_TRACE | 0x6b69));
    }
}
