"""Runs a command and takes its wall time and CPU time, or its peak memory."""

import contextlib
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass

# What stands before each command.
PREFIX = []


@dataclass(frozen=True)
class Sample:
    """What one run of a command took."""

    wall: float  # seconds
    cpu: float  # seconds of all its processes, user and system


class Failed(Exception):
    """A command that did not do what it should."""


def run(argv, env, directory, mark=None):
    """Runs a command that must succeed and returns its sample.

    With a mark, the clock starts when the command's standard error holds it: what comes
    before is not this command's work.
    """
    began = time.monotonic()
    child = subprocess.Popen(
        PREFIX + argv,
        env=env,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    seen = b""
    marked = mark is None
    while block := os.read(child.stderr.fileno(), 1 << 16):
        seen = (seen + block)[-(1 << 16) :]
        if not marked and mark in seen:
            began = time.monotonic()
            marked = True
    _, status, usage = os.wait4(child.pid, 0)
    ended = time.monotonic()
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stderr.close()
    if child.returncode != 0 or not marked:
        raise Failed(f"{argv} ended with {child.returncode}: {seen.decode(errors='replace')}")
    return Sample(ended - began, usage.ru_utime + usage.ru_stime)


@contextlib.contextmanager
def weighing(weights):
    """Appends to a list, for each command that runs within, the bytes of its largest
    process. The kernel counts a process's memory before `exec` as well, so that a small
    program has to start the command: this one is too large."""
    with tempfile.NamedTemporaryFile("r") as file:
        PREFIX[:] = ["time", "--append", "--format=%M", f"--output={file.name}"]
        try:
            yield
        finally:
            PREFIX.clear()
        weights.extend(int(line) * 1024 for line in file)


def output(argv, env, directory, text=None):
    """Runs a command that must succeed, untimed, and returns what it printed."""
    done = subprocess.run(
        argv, env=env, cwd=directory, input=text or "", capture_output=True, text=True
    )
    if done.returncode != 0:
        raise Failed(f"{argv} ended with {done.returncode}: {done.stderr}")
    return done.stdout.strip()
