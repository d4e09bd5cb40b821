"""Measures all rows, or some, and writes the table."""

import argparse
import json
import os
import sys
from pathlib import Path

from . import build_rows, growth_rows, image_rows, store_rows, table
from .bench import TOP, Kiln, Nix, Programs

MAKERS = {
    "add": store_rows.add,
    "again": store_rows.add_again,
    "take": store_rows.take_over,
    "verify": store_rows.verify,
    "independent": build_rows.independent,
    "chain": build_rows.chain,
    "nothing": build_rows.nothing_to_do,
    "evaluation": build_rows.first_evaluation,
    "closure": store_rows.closure,
    "collect": store_rows.collect,
    "image": image_rows.layout,
    "image-gzip": image_rows.gzip,
    "image-zstd": image_rows.zstd,
    "image-again": image_rows.again,
    "inspect": image_rows.inspect,
    "growth-nothing": growth_rows.nothing_to_do,
    "growth-why": growth_rows.why,
    "growth-closure": growth_rows.closure,
}


def main():
    parser = argparse.ArgumentParser(prog="bench/peers")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each side")
    parser.add_argument("--only", nargs="*", choices=MAKERS, metavar="ROW", default=MAKERS)
    parser.add_argument("--kiln", type=Path, help="another executable to measure")
    parser.add_argument("--table", type=Path, help="where to write the table")
    parser.add_argument("--samples", type=Path, help="where to write every sample as JSON")
    arguments = parser.parse_args()

    built = Path(os.environ["BENCH_TARGET"]).absolute()
    programs = Programs(built)
    kiln = Kiln((arguments.kiln or built / "kiln").absolute(), programs.tree)
    nix = Nix(programs.tree)
    warm_memory()
    rows = []
    for name in arguments.only:
        row = MAKERS[name](kiln, nix, programs)
        row.measure(arguments.rounds)
        rows.append(row)
        cpu = "; ".join(f"{side.name} {table.time(row.cpu(side.name))}" for side in row.sides)
        print(f"{table.line(row)} CPU: {cpu}", file=sys.stderr, flush=True)
    if arguments.samples:
        arguments.samples.write_text(json.dumps([vars_of(row) for row in rows], indent=1))
    text = table.render(rows, arguments.rounds)
    if arguments.table:
        arguments.table.write_text(text)
    else:
        print(text, end="")


def vars_of(row):
    """Returns a row's samples as plain data."""
    sides = {name: [vars(sample) for sample in all] for name, all in row.samples.items()}
    return {"row": row.name, "sides": sides, "peaks": row.peaks}


def warm_memory():
    """Writes and removes as much as the rows will need: a virtual machine may get its
    memory only when that is touched for the first time, which costs more than any row."""
    block, path = bytes(1 << 20), TOP / "memory"
    with path.open("wb") as file:
        for _ in range(6 << 10):
            file.write(block)
    path.unlink()


main()
