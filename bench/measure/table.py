"""The table of the book."""

import datetime
import platform
import subprocess
from pathlib import Path

HEAD = """<!-- Written by bench/peers; do not edit. -->

{date}, {machine}, {cpus} processors, Linux {kernel}. {nix}, {b3sum}. Medians of {rounds}
runs of each side in turn after one to warm up; a ratio is the median over the runs.

| work | kiln | beside it | ratio | target | peak memory |
|---|---|---|---|---|---|
"""

FOOT = """
What each row does:

{works}
"""

# What no row may need more of; those of images may have more than those of the store.
MEMORY = 150 << 20
IMAGE_MEMORY = 200 << 20


def line(row):
    """Returns a row as one line of the table."""
    own = row.sides[0].name
    others = [side.name for side in row.sides[1:]]
    beside = "; ".join(f"{name} {time(row.wall(name))}" for name in others)
    ratios = "; ".join(f"{row.ratio(name):.2f}" for name in others)
    targets = "; ".join(judged(row, target) for target in row.targets)
    most = max(row.peaks)
    limit = IMAGE_MEMORY if "image" in row.name else MEMORY
    peak = f"{most / (1 << 20):.0f} MiB" + ("" if most < limit else " (too much)")
    return f"| {row.name} | {time(row.wall(own))} | {beside} | {ratios} | {targets} | {peak} |"


def judged(row, target):
    """Returns a target and whether it is met."""
    if target.below:
        met = row.wall(row.sides[0].name) < target.below
        words = f"below {time(target.below)}"
    elif target.faster:
        met = row.ratio(target.other) >= target.faster
        words = f"{target.other} ≥ {target.faster:g}"
    else:
        met = row.ratio(target.other) >= 1 / target.within
        words = f"{target.other} ≥ 1/{target.within:g}"
    return f"{words}: {'met' if met else '**missed**'}"


def time(seconds):
    """Returns a time with about three digits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{0 if seconds >= 0.1 else 1}f} ms"


def render(rows, rounds):
    head = HEAD.format(
        date=datetime.datetime.now(datetime.UTC).strftime("%-d %B %Y"),
        machine=machine(),
        cpus=len(processors()),
        kernel=platform.release(),
        nix=first_line("nix-store", "--version"),
        b3sum=first_line("b3sum", "--version"),
        rounds=rounds,
    )
    works = "\n".join(f"- *{row.name}*: {row.work}." for row in rows)
    return head + "".join(f"{line(row)}\n" for row in rows) + FOOT.format(works=works)


def processors():
    text = Path("/proc/cpuinfo").read_text()
    return [line for line in text.splitlines() if line.startswith("model name")]


def machine():
    return processors()[0].partition(": ")[2]


def first_line(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[0]
