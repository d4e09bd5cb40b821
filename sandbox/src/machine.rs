//! PURE: what `/proc` tells of the machine.
//!
//! Two lists: what no build may see or touch, and what it sees only as far as the request
//! grants it. An entry that a kernel does not have stays absent.

use std::collections::BTreeSet;

use crate::request::{Machine, SandboxRequest};
use crate::step::Step;

/// Entries that give away addresses or secrets of the kernel, or command it.
const DANGEROUS: [&str; 18] = [
    "acpi",
    "bus",
    "fs",
    "irq",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "sched_debug",
    "scsi",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];

/// Entries that tell one machine from another, or one moment from the next. Each is a
/// mount, which costs; so these are the ones that programs read.
const TELLTALE: [&str; 11] = [
    "cmdline",
    "config.gz",
    "diskstats",
    "driver",
    "interrupts",
    "modules",
    "partitions",
    "pressure",
    "swaps",
    "version",
    "vmstat",
];

/// Memory that a build is told of where the request sets no limit.
const TOLD_MEMORY_BYTES: u64 = 4 << 30;

/// Returns the steps that hide and cover entries of `/proc`.
pub(crate) fn steps(request: &SandboxRequest, processors: usize) -> Vec<Step> {
    let mask = |path: &str, open| Step::Mask {
        path: path.to_owned(),
        open,
    };
    let mut steps: Vec<Step> = DANGEROUS
        .into_iter()
        .map(|path| mask(path, false))
        .collect();
    if request.machine == Machine::Host {
        return steps;
    }
    steps.extend(TELLTALE.into_iter().map(|path| mask(path, true)));
    // What a supervisor tells is told here too.
    let supervision = request.supervision.clone().unwrap_or_default();
    let granted = request.cores.as_ref().map_or(processors, BTreeSet::len);
    let processors = supervision
        .cores
        .map_or(granted, |cores| usize::from(cores.get()));
    let memory = supervision
        .memory_bytes
        .or(request.limits.memory_bytes)
        .unwrap_or(TOLD_MEMORY_BYTES);
    let names = supervision.kernel.map(|kernel| {
        [
            ("sys/kernel/osrelease", format!("{}\n", kernel.release)),
            ("sys/kernel/version", format!("{}\n", kernel.version)),
        ]
    });
    for (path, content) in [
        ("cpuinfo", cpuinfo(processors)),
        ("loadavg", "0.00 0.00 0.00 1/1 1\n".to_owned()),
        ("meminfo", meminfo(memory)),
        ("stat", stat(processors)),
        (
            "sys/kernel/random/boot_id",
            "00000000-0000-0000-0000-000000000000\n".to_owned(),
        ),
        ("uptime", "0.00 0.00\n".to_owned()),
    ]
    .into_iter()
    .chain(names.into_iter().flatten())
    {
        steps.push(Step::Cover {
            path: path.to_owned(),
            content: content.into_bytes(),
        });
    }
    steps
}

/// Programs count the processors here; what else they want to know, `CPUID` tells.
fn cpuinfo(processors: usize) -> String {
    each(processors, |number| format!("processor\t: {number}\n\n"))
}

fn meminfo(bytes: u64) -> String {
    let kib = bytes >> 10;
    [
        ("MemTotal:", kib),
        ("MemFree:", kib),
        ("MemAvailable:", kib),
        ("Buffers:", 0),
        ("Cached:", 0),
        ("SwapTotal:", 0),
        ("SwapFree:", 0),
    ]
    .map(|(name, kib)| format!("{name:<16}{kib:>8} kB\n"))
    .concat()
}

fn stat(processors: usize) -> String {
    let zeros = "0 0 0 0 0 0 0 0 0 0";
    let each = each(processors, |number| format!("cpu{number} {zeros}\n"));
    format!(
        "cpu  {zeros}\n{each}intr 0\nctxt 0\nbtime 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"
    )
}

fn each(processors: usize, text: impl Fn(usize) -> String) -> String {
    (0..processors).map(text).collect::<Vec<_>>().concat()
}
