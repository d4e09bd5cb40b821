"""Rows of building: trivial builds, a graph with nothing to do, its first evaluation."""

import itertools

from .row import Row, Side, Target

BUILDS = 100
PACKAGES = 1_000


def independent(kiln, nix, _programs):
    names = [f"alone/p{number}" for number in range(BUILDS)]
    for number, name in enumerate(names):
        kiln.add_package(name, [], f'echo {number} > "$out/file"')
    expression = nix.expression(
        "independent",
        'map (n: package "p${toString n}" "echo ${toString n} > $out")\n'
        f"  (builtins.genList (n: n) {BUILDS})",
    )
    return Row(
        "independent builds",
        f"{BUILDS} trivial builds in sandboxes, two at once",
        [
            Side("kiln", lambda: kiln.time("build", "-j2", *names), kiln.fresh),
            Side("Nix", lambda: nix.time(*nix.build("-j2", expression)), nix.fresh),
        ],
        [Target("Nix", faster=4)],
    )


def chain(kiln, nix, _programs):
    for number in range(BUILDS):
        inputs = [f"chain/p{number - 1}"] if number else []
        before = f"$p{number - 1}" if number else ""
        kiln.add_package(f"chain/p{number}", inputs, f'echo {number} {before} > "$out/file"')
    expression = nix.expression(
        "chain",
        "builtins.foldl'\n"
        '  (before: n: package "p${toString n}" "echo ${toString n} ${before} > $out")\n'
        f'  "" (builtins.genList (n: n) {BUILDS})',
    )
    return Row(
        "builds in a chain",
        f"{BUILDS} trivial builds, each with the one before as its input",
        [
            Side("kiln", lambda: kiln.time("build", "-j2", f"chain/p{BUILDS - 1}"), kiln.fresh),
            Side("Nix", lambda: nix.time(*nix.build("-j2", expression)), nix.fresh),
        ],
        [Target("Nix", faster=3)],
    )


def inputs_of(number):
    """Returns the inputs of a package of the graph: package 0 needs all others."""
    others = {2 * number + 1, 2 * number + 2, number + 1 + number * 31 % 200}
    return sorted(other for other in others if other < PACKAGES)


def build_kiln_graph(kiln):
    kiln.fresh()
    write_kiln(kiln, "")
    kiln.do("build", "graph/p0")


def build_graph(kiln, nix):
    """Builds the graph on both sides."""
    build_kiln_graph(kiln)
    nix.fresh()
    write_nix(nix)
    nix.do(*nix.build("-j2", nix.graph))


def write_kiln(kiln, remark):
    for number in range(PACKAGES):
        inputs = inputs_of(number)
        names = " ".join(f"$p{other}" for other in inputs)
        kiln.add_package(
            f"graph/p{number}",
            [f"graph/p{other}" for other in inputs],
            f'echo {number} {names} > "$out/file"',
            remark,
        )


def write_nix(nix):
    """Writes the graph as one expression: one attribute for each package."""
    lines = []
    for number in range(PACKAGES):
        names = " ".join(f"${{p.p{other}}}" for other in inputs_of(number))
        lines.append(f'p{number} = package "p{number}" "echo {number} {names} > $out";\n')
    nix.graph = nix.expression("graph", f"let p = {{\n{''.join(lines)}}}; in p.p0")


def nothing_to_do(kiln, nix, _programs):
    build_graph(kiln, nix)
    return Row(
        "nothing to do",
        f"build a graph of {PACKAGES:,} packages that are built",
        [
            Side("kiln", lambda: kiln.time("build", "graph/p0")),
            Side("Nix", lambda: nix.time(*nix.build(nix.graph))),
        ],
        [Target("Nix", faster=5), Target(below=0.015)],
    )


def first_evaluation(kiln, nix, _programs):
    """Every file has changed on kiln's side, every derivation on the other's."""
    build_graph(kiln, nix)
    numbers = itertools.count(1)

    def instantiate():
        argv = ["--argstr", "tools", nix.tools, "--argstr", "nonce", next(numbers), nix.graph]
        return nix.time("nix-instantiate", *argv)

    return Row(
        "first evaluation",
        "the same graph after a change of every derivation",
        [
            Side(
                "kiln",
                lambda: kiln.time("build", "graph/p0"),
                lambda: write_kiln(kiln, f"# change {next(numbers)}\n"),
            ),
            Side("Nix", instantiate),
        ],
        [Target("Nix", faster=20)],
    )
