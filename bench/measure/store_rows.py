"""Rows of the store: adding, taking over, asking, collecting, verifying."""

import itertools
from pathlib import Path

from .bench import TOP, b3sum, remove, tool
from .row import Row, Side, Target

FILES = 20_000
OBJECTS = 10_000
ENDED = "builder-ended"


def write_source(programs):
    """Writes the tree that is added, unless it is there, and returns where it is."""
    source = TOP / "source"
    if not source.exists():
        tool(programs.tree, 1, FILES, source)
    return source


def add_to_both(kiln, nix, source):
    kiln.fresh()
    kiln.do("store", "add", source)
    nix.fresh()
    nix.do("nix-store", "--add", source)


def add(kiln, nix, programs):
    source, copy = write_source(programs), TOP / "copy"

    def no_copy():
        remove(copy)

    return Row(
        "add a tree",
        "1 GiB in 20,000 files, a quarter of them duplicates, into an empty store",
        [
            Side("kiln", lambda: kiln.time("store", "add", source), kiln.fresh),
            Side("Nix", lambda: nix.time("nix-store", "--add", source), nix.fresh),
            Side("cp -a", lambda: tool("cp", "-a", source, copy), no_copy),
        ],
        [Target("Nix", faster=2), Target("cp -a", within=1.25)],
        no_copy,
    )


def add_again(kiln, nix, programs):
    source = write_source(programs)
    add_to_both(kiln, nix, source)
    return Row(
        "add it again",
        "the same tree, into the store that has it",
        [
            Side("kiln", lambda: kiln.time("store", "add", source)),
            Side("Nix", lambda: nix.time("nix-store", "--add", source)),
            Side("b3sum", lambda: b3sum(source)),
        ],
        [Target("Nix", faster=4.5), Target("b3sum", within=1.3)],
    )


def verify(kiln, nix, programs):
    source = write_source(programs)
    add_to_both(kiln, nix, source)
    return Row(
        "verify the store",
        "the store with that tree; b3sum reads the tree",
        [
            Side("kiln", lambda: kiln.time("store", "verify")),
            Side("Nix", lambda: nix.time("nix-store", "--verify", "--check-contents")),
            Side("b3sum", lambda: b3sum(source)),
        ],
        [Target("b3sum", within=1.3)],
    )


def take_over(kiln, nix, programs):
    """A build writes a tree that neither store has; the clock starts when it is done."""
    source = write_source(programs)
    seeds = itertools.count(2)
    expression = nix.expression(
        "tree",
        f'package "tree" "${{tree}} ${{seed}} {FILES} $out; echo {ENDED} >&2"',
    )

    def prepare_kiln():
        kiln.fresh()
        kiln.add_package("take/tree", [], f'tree {next(seeds)} {FILES} "$out"; echo {ENDED}')

    def build_nix():
        argv = nix.build("--argstr", "seed", next(seeds), expression)
        return nix.time(*argv, mark=ENDED.encode())

    return Row(
        "take over an output",
        "from the end of a builder that wrote such a tree to the end of the command",
        [
            Side(
                "kiln",
                lambda: kiln.time("build", "-v", "take/tree", mark=ENDED.encode()),
                prepare_kiln,
            ),
            Side("Nix", build_nix, nix.fresh),
            Side("b3sum", lambda: b3sum(source)),
        ],
        [Target("Nix", faster=3), Target("b3sum", within=1.5)],
    )


def fill_kiln(kiln, programs):
    """Adds objects of one file each to an empty store, and returns the last."""
    kiln.fresh()
    return kiln.fill(programs.objects, OBJECTS, 1)


def fill_nix(nix):
    """Adds the same objects on the other side, and returns the last."""
    nix.fresh()
    paths, lines = [], []
    for number in range(OBJECTS):
        last = OBJECTS - 1 - number
        places = {last + 1, 2 * last + 1, 2 * last + 2}
        named = [paths[OBJECTS - 1 - place] for place in sorted(places) if place < OBJECTS]
        path = Path(f"/nix/store/{base32(number)}-object-{number}")
        path.mkdir()
        (path / "names").write_text(f"object {number}\n" + "".join(f"{p}\n" for p in named))
        paths.append(path)
        lines += [path, "", len(named), *named]
    text = "".join(f"{line}\n" for line in lines)
    nix.do("nix-store", "--register-validity", text=text)
    return paths[-1]


def closure(kiln, nix, programs):
    kiln_top, nix_top = fill_kiln(kiln, programs), fill_nix(nix)
    return Row(
        "closure",
        f"all that one object needs: {OBJECTS:,} objects",
        [
            Side("kiln", lambda: kiln.time("closure", kiln_top)),
            Side("Nix", lambda: nix.time("nix-store", "-qR", nix_top)),
        ],
        [Target("Nix", faster=20), Target(below=0.020)],
    )


def collect(kiln, nix, programs):
    files = TOP / "files"

    def fill_files():
        for number in range(OBJECTS):
            directory = files / str(number)
            directory.mkdir(parents=True)
            (directory / "names").write_text(f"object {number}\n")

    return Row(
        "collect garbage",
        f"{OBJECTS:,} dead objects of one file; rm removes as many directories",
        [
            Side(
                "kiln",
                lambda: kiln.time("store", "gc"),
                lambda: fill_kiln(kiln, programs),
            ),
            Side("Nix", lambda: nix.time("nix-store", "--gc"), lambda: fill_nix(nix)),
            Side("rm -rf", lambda: tool("rm", "-rf", files), fill_files),
        ],
        [Target("Nix", faster=9), Target("rm -rf", within=2)],
    )


def base32(number):
    """Returns a number as 32 characters of Nix's alphabet."""
    alphabet = "0123456789abcdfghijklmnpqrsvwxyz"
    digits = [alphabet[number >> 5 * place & 31] for place in range(8)]
    return "".join(digits) * 4
