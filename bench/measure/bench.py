"""The machine's directories, and each side's surroundings."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from copy import copy
from pathlib import Path

from .clock import output, run

TOP = Path(os.environ["BENCH_TOP"])
ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(TOP), "LC_ALL": "C.UTF-8"}
BASH = Path("/bin/bash-static")
BUSYBOX = Path("/bin/busybox")


def remove(path):
    """Removes a tree that may be read-only; nothing there is no error."""
    subprocess.run(["rm", "-rf", str(path)], check=True)


class Programs:
    """What the measurements need beside both sides."""

    def __init__(self, built):
        self.objects = built / "examples/objects"
        self.tree = make_tree_program()


def make_tree_program():
    """Compiles the program that writes trees, and returns where it is."""
    program = TOP / "tree"
    here = Path(__file__).parent.parent
    flags = ["-O", "--edition", "2024", "-C", "target-feature=+crt-static"]
    subprocess.run(["rustc", *flags, "-o", program, here / "tree.rs"], check=True)
    subprocess.run(["strip", program], check=True)
    return program


class Kiln:
    """kiln with a store and a project of its own, and a root made of a static bash."""

    def __init__(self, executable, tree_program):
        self.executable = executable
        self.store = TOP / "kiln"
        self.project = TOP / "project"
        self.package = debian_package({
            "usr/bin/bash": BASH.read_bytes(),
            "usr/bin/tree": tree_program.read_bytes(),
        })
        self.sha256 = hashlib.sha256(self.package).hexdigest()
        self.env = ENVIRONMENT | {
            "KILN_STORE": str(self.store),
            # The package is in the store's downloads already: nothing asks this mirror.
            "KILN_MIRROR_DEBIAN": "http://127.0.0.1:1",
        }
        self.write("kiln.toml", "")
        self.write("derivations/seed/bash.toml", SEED % self.sha256)
        self.write("derivations/recipes/sh.toml", RECIPE)
        self.add_package("seed/ready", [], 'echo ready > "$out/file"')

    def write(self, name, text):
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def add_package(self, name, inputs, install, remark=""):
        short = name.rsplit("/", 1)[-1]
        listed = ", ".join(f'"{name}"' for name in inputs)
        self.write(f"derivations/{name}.toml", remark + PACKAGE % (short, listed, install))

    def fresh(self):
        """Makes an empty store that has the root of builds."""
        remove(self.store)
        downloads = self.store / "downloads"
        downloads.mkdir(parents=True)
        (downloads / self.sha256).write_bytes(self.package)
        self.do("build", "seed/ready")

    def beside(self, store):
        """Returns the same kiln with a copy of its store."""
        other = copy(self)
        other.store = TOP / store
        other.env = self.env | {"KILN_STORE": str(other.store)}
        remove(other.store)
        tool("cp", "-a", self.store, other.store)
        return other

    def fill(self, program, count, files):
        """Adds objects to the store and returns the last one, which needs all others."""
        return output([str(program), str(self.store), str(count), str(files)], self.env, TOP)

    def argv(self, *arguments):
        return [str(self.executable), *map(str, arguments)]

    def do(self, *arguments):
        return output(self.argv(*arguments), self.env, self.project)

    def time(self, *arguments, mark=None):
        return run(self.argv(*arguments), self.env, self.project, mark)


class Nix:
    """Nix with its usual store, sandboxed, without substituters. Its builder is a static
    busybox, which starts faster than the bash that kiln's builds need."""

    def __init__(self, tree_program):
        self.conf = TOP / "nix-conf"
        self.conf.mkdir()
        (self.conf / "nix.conf").write_text(
            "sandbox = true\nsubstituters =\nbuild-users-group = nixbld\n"
        )
        self.expressions = TOP / "expressions"
        self.expressions.mkdir()
        self.env = ENVIRONMENT | {"NIX_CONF_DIR": str(self.conf)}
        tools = TOP / "tools"
        (tools / "bin").mkdir(parents=True)
        shutil.copy(BUSYBOX, tools / "bin/sh")
        shutil.copy(tree_program, tools / "bin/tree")
        self.tools_source = tools
        self.tools = ""

    def clear(self):
        """Removes the store."""
        for part in ("store", "var"):
            remove(Path("/nix") / part)

    def fresh(self):
        """Makes an empty store that has the tools of builds."""
        self.clear()
        self.tools = self.do("nix-store", "--add", self.tools_source)

    def expression(self, name, text):
        path = self.expressions / f"{name}.nix"
        path.write_text(HEAD + text)
        return path

    def build(self, *arguments):
        """Returns the command that builds an expression."""
        return ["nix-build", "--no-out-link", "--argstr", "tools", self.tools, *arguments]

    def do(self, *argv, text=None):
        return output([str(part) for part in argv], self.env, TOP, text)

    def time(self, *argv, mark=None):
        return run([str(part) for part in argv], self.env, TOP, mark)


def tool(*argv):
    """Runs an ordinary tool and returns its sample."""
    return run([str(part) for part in argv], ENVIRONMENT, TOP)


def b3sum(directory):
    """Hashes every file of a tree with b3sum, in as many processes as there are processors."""
    command = 'find "$1" -type f -print0 | xargs -0 -n 500 -P "$2" b3sum --num-threads 1'
    return tool("sh", "-c", command, "b3sum", directory, os.cpu_count())


def debian_package(files):
    """Returns a Debian package that holds files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    archive = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar", data.getvalue())):
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        archive += head.encode() + content + b"\n" * (len(content) % 2)
    return archive


SEED = """name = "bash"
version = "1"
summary = "The builder of the measurements"
license = "GPL-3.0-or-later"

[debian]
packages = [{ name = "bash", version = "1", sha256 = "%s", path = "pool/bash.deb" }]
"""

RECIPE = """name = "sh"
summary = "bash"

[recipe]
root = ["seed/bash"]
"""

PACKAGE = """name = "%s"
version = "1"
summary = "A package of the measurements"
license = "MIT"

[build]
recipe = "sh"
inputs = [%s]

[build.phases]
install = '''
%s
'''
"""

HEAD = """{ tools, nonce ? "", seed ? "" }:
let
  sh = "${builtins.storePath tools}/bin/sh";
  tree = "${builtins.storePath tools}/bin/tree";
  package = name: script: derivation {
    inherit name nonce;
    system = builtins.currentSystem;
    builder = sh;
    args = [ "-c" script ];
  };
in
"""
