"""Rows of growth: the same questions to a small store and to a large one."""

from functools import cache

from .build_rows import PACKAGES, build_kiln_graph
from .row import Row, Side, Target

ADDED = 99_000
FILES_EACH = 10


@cache
def grown(kiln, programs):
    """Returns kiln with a large store that has the graph, whose own store has it alone."""
    build_kiln_graph(kiln)
    large = kiln.beside("large")
    large.fill(programs.objects, ADDED, FILES_EACH)
    return large


def question(name, ask):
    """Returns what makes the row of one question about the top and the bottom of the graph."""

    def make(kiln, nix, programs):
        nix.clear()
        large = grown(kiln, programs)
        top, bottom = (kiln.do("build", f"graph/p{number}") for number in (0, PACKAGES - 1))
        arguments = ask(top, bottom)
        return Row(
            f"growth: {name}",
            "in a store of 100,000 objects with 1,000,000 files, beside one of 1,000 objects",
            [
                Side("kiln", lambda: large.time(*arguments)),
                Side("small store", lambda: kiln.time(*arguments)),
            ],
            [Target("small store", within=1.5)],
        )

    return make


nothing_to_do = question("nothing to do", lambda _top, _bottom: ["build", "graph/p0"])
why = question("why", lambda top, bottom: ["why", top, bottom])
closure = question("closure", lambda top, _bottom: ["closure", top])
