"""A row of the table: the same work for several sides, in turn."""

from dataclasses import dataclass, field
from statistics import median
from typing import Callable

from .clock import Sample, weighing


@dataclass(frozen=True)
class Side:
    """One who does the work."""

    name: str
    run: Callable[[], Sample]
    prepare: Callable[[], None] = lambda: None  # before each run, untimed


@dataclass(frozen=True)
class Target:
    """What kiln aims at, beside another side or by itself.

    Of `faster`, `within` and `below` exactly one is given: so many times as fast as the
    other, at most so many times its time, at most so many seconds.
    """

    other: str = ""
    faster: float = 0.0
    within: float = 0.0
    below: float = 0.0


@dataclass
class Row:
    """Work, and who does it. The first side is kiln."""

    name: str
    work: str
    sides: list[Side]
    targets: list[Target]
    clean: Callable[[], None] = lambda: None  # after the last run
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    peaks: list[int] = field(default_factory=list)  # kiln's memory in bytes

    def measure(self, rounds):
        """Lets all sides work in turn: once to warm up, then so many times. kiln works once
        more for its memory."""
        self.samples = {side.name: [] for side in self.sides}
        for number in range(rounds + 1):
            for side in self.sides:
                side.prepare()
                sample = side.run()
                if number > 0:
                    self.samples[side.name].append(sample)
        self.sides[0].prepare()
        with weighing(self.peaks):
            self.sides[0].run()
        self.clean()

    def wall(self, side):
        """Returns the median wall time of a side in seconds."""
        return median(sample.wall for sample in self.samples[side])

    def ratio(self, side):
        """Returns the median, over the rounds, of a side's time over kiln's."""
        own = self.samples[self.sides[0].name]
        pairs = zip(self.samples[side], own, strict=True)
        return median(other.wall / mine.wall for other, mine in pairs)

    def cpu(self, side):
        """Returns the median CPU time of a side in seconds."""
        return median(sample.cpu for sample in self.samples[side])
