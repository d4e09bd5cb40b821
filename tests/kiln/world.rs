//! A project, a store, and a mirror on the loopback interface.
//!
//! The mirror serves one Debian package that is made here from this machine's own bash,
//! coreutils and C library, so that builds run for real without any download.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{LazyLock, Mutex};

use kiln::hash::Sha256Digest;

/// What builds of these tests may call.
const PROGRAMS: [&str; 19] = [
    "bash", "cat", "chmod", "chown", "cp", "date", "dd", "head", "ln", "ls", "mkdir", "mkfifo",
    "nproc", "rm", "seq", "setpriv", "sleep", "touch", "tr",
];

/// Answers of the mirror by path: bytes, and the length that it claims.
type Answers = BTreeMap<String, (Vec<u8>, usize)>;

static ANSWERS: Mutex<Answers> = Mutex::new(BTreeMap::new());

/// The mirror's base address. It serves until the tests end.
pub static MIRROR: LazyLock<String> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(10_000) {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut first = String::new();
                reader.read_line(&mut first).unwrap();
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    line.clear();
                }
                let path = first.split(' ').nth(1).unwrap_or("").to_owned();
                let answer = ANSWERS.lock().unwrap().get(&path).cloned();
                let (status, (bytes, length)) = match answer {
                    Some(answer) => ("200 OK", answer),
                    None => ("404 Not Found", (Vec::new(), 0)),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                // A client that has gone away is the client's business.
                drop(
                    stream
                        .write_all(head.as_bytes())
                        .and_then(|()| stream.write_all(&bytes)),
                );
            });
        }
    });
    base
});

/// Lets the mirror serve bytes, and returns their hash.
pub fn serve(path: &str, bytes: &[u8]) -> Sha256Digest {
    serve_claiming(path, bytes, bytes.len())
}

/// Lets the mirror serve bytes and claim another length.
pub fn serve_claiming(path: &str, bytes: &[u8], length: usize) -> Sha256Digest {
    ANSWERS
        .lock()
        .unwrap()
        .insert(path.to_owned(), (bytes.to_vec(), length));
    Sha256Digest::of(bytes)
}

/// The hash of the package with this machine's programs.
static SEED: LazyLock<Sha256Digest> = LazyLock::new(|| {
    let mut data = tar::Builder::new(Vec::new());
    for path in host_files() {
        let mut file = File::open(&path).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(file.metadata().unwrap().len());
        header.set_mode(0o755);
        let name = path.strip_prefix("/").unwrap();
        data.append_data(&mut header, name, &mut file).unwrap();
    }
    let data = data.into_inner().unwrap();
    let mut package = Vec::new();
    let mut archive = ar::Builder::new(&mut package);
    for (member, bytes) in [("debian-binary", b"2.0\n".to_vec()), ("data.tar", data)] {
        let header = ar::Header::new(member.as_bytes().to_vec(), bytes.len() as u64);
        archive.append(&header, bytes.as_slice()).unwrap();
    }
    serve("/debian/pool/host.deb", &package)
});

/// Returns the programs and every library that they need.
fn host_files() -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for program in PROGRAMS {
        let path = Path::new("/usr/bin").join(program);
        let needed = Command::new("ldd").arg(&path).output().unwrap();
        for word in String::from_utf8_lossy(&needed.stdout).split_whitespace() {
            if word.starts_with('/') {
                files.insert(PathBuf::from(word));
            }
        }
        files.insert(path);
    }
    files
}

/// Gives a file or directory a mode.
pub fn unlock(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Loses the content of a file under all its names, as a file system may.
pub fn truncate(path: &Path) {
    unlock(path, 0o644);
    std::fs::write(path, "").unwrap();
}

/// A project with a store of its own.
pub struct World {
    directory: tempfile::TempDir,
}

/// What a run of `kiln` gave.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A process that does not outlive its test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl World {
    pub fn new() -> Self {
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        world.write("kiln.toml", "");
        world.write(
            "derivations/seed/host.toml",
            &format!(
                "name = \"host\"\nversion = \"1\"\nsummary = \"this machine\"\nlicense = \"MIT\"\n\
                 [debian]\npackages = [{{ name = \"host\", version = \"1\", sha256 = \"{}\", \
                 path = \"pool/host.deb\" }}]\n[debian.files]\n\
                 \"etc/passwd\" = \"builder:x:1000:100::/homeless:/bin/bash\\n\"\n",
                *SEED
            ),
        );
        world.write(
            "derivations/recipes/sh.toml",
            "name = \"sh\"\nsummary = \"bash\"\n[recipe]\nroot = [\"seed/host\"]\n",
        );
        world.package("tools/good", "", "echo good > \"$out/file\"");
        world
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes a package with an install phase, and what else belongs into its file.
    pub fn package(&self, name: &str, rest: &str, install: &str) {
        let short = name.rsplit('/').next().unwrap();
        self.write(
            &format!("derivations/{name}.toml"),
            &format!(
                "name = \"{short}\"\nversion = \"1\"\nsummary = \"a test\"\nlicense = \"MIT\"\n\
                 {rest}\n[build]\nrecipe = \"sh\"\n[build.phases]\ninstall = '''\n{install}\n'''\n"
            ),
        );
    }

    /// Writes a package that has `tools/good` as its input.
    pub fn user_of_good(&self, name: &str, install: &str) {
        self.package(name, "", install);
        let file = self.path().join(format!("derivations/{name}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let with = "recipe = \"sh\"\ninputs = [\"tools/good\"]";
        std::fs::write(&file, text.replace("recipe = \"sh\"", with)).unwrap();
    }

    /// Starts a build that would take minutes, and returns when it runs.
    pub fn start_slow_build(&self) -> Running {
        self.package("tools/slow", "", "echo started; sleep 300");
        self.start_build("tools/slow")
    }

    /// Starts a build, and returns when it has said that it started.
    pub fn start_build(&self, package: &str) -> Running {
        let child = self
            .command(&["build", "-v", package])
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("started")));
        running
    }

    /// Returns a command that runs `kiln` in the project with an empty environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.in_world(Command::new(env!("CARGO_BIN_EXE_kiln")), arguments)
    }

    /// A command that an interrupt ends, also where the tests themselves were started with
    /// interrupts ignored, as a shell starts what runs in the background.
    pub fn interruptible(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_kiln")]);
        self.in_world(command, arguments)
    }

    /// Completes a command that runs `kiln` in the project with an empty environment.
    pub fn in_world(&self, mut command: Command, arguments: &[&str]) -> Command {
        LazyLock::force(&SEED);
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path().join("home"))
            .env("KILN_STORE", self.store())
            .env("KILN_MIRROR_DEBIAN", format!("{}/debian", *MIRROR))
            .env("KILN_MIRROR_CRATES", format!("{}/crates", *MIRROR));
        command
    }

    pub fn kiln(&self, arguments: &[&str]) -> Run {
        self.run(&mut self.command(arguments))
    }

    /// Runs a command and makes what it printed the same on every machine.
    pub fn run(&self, command: &mut Command) -> Run {
        let output = command.output().unwrap();
        Run {
            status: output.status.code().unwrap_or(-1),
            stdout: self.filter(&output.stdout),
            stderr: self.filter(&output.stderr),
        }
    }

    fn filter(&self, bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes)
            .replace(self.path().to_str().unwrap(), "[DIR]")
            .replace(MIRROR.as_str(), "[MIRROR]")
    }

    /// Builds a package that must build, and returns where its output lies.
    pub fn build(&self, package: &str) -> PathBuf {
        let run = self.kiln(&["build", package]);
        assert_eq!(run.status, 0, "{run:?}");
        let line = run.stdout.lines().next_back().unwrap();
        PathBuf::from(line.replace("[DIR]", self.path().to_str().unwrap()))
    }

    /// Makes the store look as if the machine had stopped since content was brought.
    pub fn reboot(&self) {
        let text = std::fs::read_to_string(self.unsynced()).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        std::fs::write(self.unsynced(), format!("another-boot\n{rest}")).unwrap();
    }

    /// Makes the store look as if content had been brought long ago.
    pub fn wait_long(&self) {
        let text = std::fs::read_to_string(self.unsynced()).unwrap();
        let boot = text.lines().next().unwrap();
        std::fs::write(self.unsynced(), format!("{boot}\n1000\n..")).unwrap();
    }

    /// Returns the file that says what is not on the disk.
    pub fn unsynced(&self) -> PathBuf {
        self.store().join("locks/unsynced")
    }

    /// Asserts that the store still works.
    pub fn assert_usable(&self) {
        let file = self.build("tools/good").join("file");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "good\n");
        let verified = self.kiln(&["store", "verify"]);
        assert_eq!(verified.status, 0, "{verified:?}");
    }
}
