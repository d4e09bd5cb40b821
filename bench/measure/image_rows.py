"""Rows of images: one closure as layers, in each encoding; again; judged."""

import subprocess
from functools import cache

from .bench import TOP, remove, tool
from .row import Row, Side, Target
from .store_rows import FILES, write_source

OUT = TOP / "out"
PEER = TOP / "peer"
ENDED = "oci:" + str(OUT)
TAR = "tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -C "

IMAGE = """name = "tree"
version = "1"
summary = "An image of the measurements"

[image]
policy = "images/loose"
%s"""

CONTENT = """
[[image.contents]]
package = "image/%s"
"""

POLICY = """name = "loose"
summary = "One rule"

[policy]
rules = ["no-setuid"]
"""


@cache
def closure(kiln):
    """Builds the tree and something small beside it."""
    kiln.fresh()
    kiln.write("derivations/images/loose.toml", POLICY)
    contents = CONTENT % "tree" + CONTENT % "small"
    kiln.write("derivations/images/tree.toml", IMAGE % contents)
    kiln.add_package("image/tree", [], f'tree 1 {FILES} "$out/tree"')
    change(kiln, 0)
    kiln.do("build", "image/tree", "image/small")


def change(kiln, number):
    """Changes what is small."""
    kiln.add_package("image/small", [], f'echo {number} > "$out/small"')


def forget(kiln):
    """Leaves nothing of an image but what it is made of."""
    for made in (OUT, kiln.store / "images", kiln.store / "evaluations"):
        remove(made)


def make(kiln, compression):
    return kiln.time("image", "images/tree", "--compression", compression, "-o", ENDED)


def peer(script):
    """Returns what runs a script of a shell, and what removes all that it made."""

    def run():
        return tool("sh", "-euc", script)

    def prepare():
        remove(PEER)
        PEER.mkdir()

    return run, prepare


def side(name, script):
    run, prepare = peer(script)
    return Side(name, run, prepare)


def of_kiln(kiln, compression):
    return Side("kiln", lambda: make(kiln, compression), lambda: forget(kiln))


def umoci(source):
    """Prepares an empty layout, and lets umoci put the tree into it."""
    run, empty = peer(f"umoci insert --image {PEER}/layout:x {source} /tree")

    def prepare():
        empty()
        tool("umoci", "init", "--layout", PEER / "layout")
        tool("umoci", "new", "--image", f"{PEER}/layout:x")

    return Side("umoci (gzip)", run, prepare)


def clean():
    remove(OUT)
    remove(PEER)


def layout(kiln, _nix, programs):
    closure(kiln)
    # The same tree, without the hard links by which a store keeps one copy of a file.
    source = write_source(programs)
    store = f"--root {PEER}/root --runroot {PEER}/run --storage-driver vfs"
    return Row(
        "image, uncompressed",
        "the tree as an OCI layout, every file read for the policy too; tar to a file and "
        "openssl's SHA-256 of it; buildah copies and commits it",
        [
            of_kiln(kiln, "none"),
            side("tar, SHA-256", f"{TAR} {source} -cf {PEER}/t . && openssl dgst -sha256 {PEER}/t"),
            side(
                "buildah",
                f"c=$(buildah {store} from scratch); buildah {store} copy $c {source} /; "
                f"buildah {store} commit --disable-compression $c oci:{PEER}/layout",
            ),
        ],
        [Target("tar, SHA-256", within=1.3), Target("buildah", faster=10)],
        clean,
    )


def gzip(kiln, _nix, programs):
    targets = [Target("umoci (gzip)", faster=1.5)]
    return encoded(kiln, programs, "gzip", "pigz -6 -p2", targets)


def zstd(kiln, _nix, programs):
    targets = [Target("tar, zstd -3 -T2", within=1.15), Target("umoci (gzip)", faster=2.5)]
    return encoded(kiln, programs, "zstd", "zstd -q -3 -T2", targets)


def encoded(kiln, programs, compression, other, targets):
    """Returns the row of one encoding, beside `tar` into another encoder."""
    closure(kiln)
    source = write_source(programs)
    name = f"tar, {other.replace(' -q', '')}"
    row = Row(
        f"image, {compression}",
        f"the same with {compression}",
        [
            of_kiln(kiln, compression),
            side(name, f"{TAR} {source} -c . | {other} > {PEER}/t"),
            umoci(source),
        ],
        targets,
    )

    def weigh():
        theirs = tool_size(f"{TAR} {source} -c . | {other} | wc -c")
        row.work += f"; kiln's layers have {layers() / theirs:.3f} times the bytes of the other's"
        clean()

    row.clean = weigh
    return row


def tool_size(script):
    return int(subprocess.run(["sh", "-euc", script], capture_output=True, check=True).stdout)


def layers():
    """Returns the bytes of the layers that were made last."""
    blobs = (OUT / "blobs/sha256").iterdir()
    return sum(size for blob in blobs if (size := blob.stat().st_size) > 1 << 16)


def again(kiln, _nix, _programs):
    closure(kiln)
    numbers = iter(range(1, 1000))

    def prepare():
        change(kiln, next(numbers))
        kiln.do("build", "image/small")

    return Row(
        "image, again",
        "the uncompressed image after a change of its small package, into the same layout, "
        "beside the first time",
        [
            Side("kiln", lambda: make(kiln, "none"), prepare),
            Side("first time", lambda: make(kiln, "none"), lambda: forget(kiln)),
        ],
        [Target("first time", faster=10)],
        clean,
    )


def inspect(kiln, _nix, _programs):
    closure(kiln)
    forget(kiln)
    make(kiln, "none")
    return Row(
        "inspect an image",
        "the rules of `minimal` on the uncompressed image; openssl's SHA-256 of its blobs",
        [
            Side("kiln", lambda: kiln.time("inspect", ENDED, "--policy", "minimal")),
            Side("SHA-256", lambda: tool("sh", "-euc", f"openssl dgst -sha256 {OUT}/blobs/sha256/*")),
        ],
        [Target("SHA-256", within=2)],
        clean,
    )
