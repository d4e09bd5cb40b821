//! Tries an act outside and inside, and compares.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use kiln_sandbox::{Access, Cancel, End, Ids, Launcher, Node, SandboxError, SandboxRequest};

use crate::programs::{is_second_run, programs, user};

/// Where the twin of an act works.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// Anywhere.
    Anyone,
    /// In a user and a mount namespace of its own.
    OwnNamespaces,
    /// Where the tests are run by root.
    Root,
    /// Where this machine's kernel has what it needs.
    SomeHosts,
}

/// Directories of the host: one that the sandbox is not given, one that it can read, one
/// that it can write.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// Makes the three, with a file in the first two.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["host", "input", "output"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let place = Self { directory };
        place.restore();
        place
    }

    /// Makes the files anew, and clears away what a twin made: all such is called `made`.
    fn restore(&self) {
        for name in ["host/secret", "input/file", "input/other"] {
            std::fs::write(self.path(name), "before\n").unwrap();
        }
        for name in ["input/made", "output/made"] {
            let path = self.path(name);
            match std::fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => std::fs::remove_dir(path).unwrap(),
                Ok(_) => std::fs::remove_file(path).unwrap(),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
            }
        }
    }

    /// Returns where a directory lies on the host.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns an act's words. `{host}` is on the host in both worlds.
    fn words(&self, act: &str, inside: bool) -> Vec<String> {
        let on_host = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let seen = |name: &str| {
            if inside {
                format!("/{name}")
            } else {
                on_host(name)
            }
        };
        act.split_whitespace()
            .map(|word| {
                word.replace("{host}", &on_host("host"))
                    .replace("{input}", &seen("input"))
                    .replace("{output}", &seen("output"))
            })
            .collect()
    }

    /// Returns a command that performs an act on the host.
    pub fn command(&self, act: &str) -> Command {
        let mut command = Command::new(&programs().probe);
        command
            .args(self.words(act, false))
            .current_dir(self.path("output"))
            .stdin(Stdio::null());
        command
    }

    /// Returns a request that performs an act in the sandbox.
    pub fn request(&self, act: &str) -> SandboxRequest {
        let mut command = vec!["/probe".to_owned()];
        if let Some(user) = user().filter(|user| user != "1000") {
            command.extend(["as".to_owned(), user]);
        }
        command.extend(self.words(act, true));
        let bind = |path: &str, source, access| Node::Bind {
            path: path.to_owned(),
            source,
            access,
        };
        let mut request = SandboxRequest::new(command);
        request.nodes = vec![
            bind("/probe", programs().probe.clone(), Access::ReadOnly),
            bind("/input", self.path("input"), Access::ReadOnly),
            bind("/output", self.path("output"), Access::ReadWrite),
        ];
        if user().is_some() {
            request.ids = Ids::Range;
        }
        "/output".clone_into(&mut request.working_directory);
        // No act waits: this only keeps a broken sandbox from stopping the tests.
        request.limits.wall = Some(Duration::from_mins(1));
        request
    }

    /// Performs an act on the host and says how it ended.
    pub fn outside(&self, act: &str) -> String {
        let Output { status, stdout, .. } = self.command(act).output().unwrap();
        match status.code() {
            Some(code) => in_words(code, &stdout),
            None => format!("ended with {status}"),
        }
    }

    /// Performs an act in the sandbox and says how it ended.
    pub fn inside(&self, act: &str) -> String {
        run(&self.request(act)).0
    }

    /// Asserts that an act works outside, and is refused inside with one of these errors.
    pub fn refuses(&self, act: &str, twin: Twin, errors: &[&str]) {
        self.try_twin(act, twin);
        self.restore();
        let inside = self.inside(act);
        assert!(
            errors
                .iter()
                .any(|error| inside == format!("refused {error}")),
            "`{act}` inside: {inside}, expected {errors:?}"
        );
    }

    /// Asserts that an act works outside, and says so where it cannot be tried.
    pub fn try_twin(&self, act: &str, twin: Twin) {
        if is_second_run() {
            return;
        }
        let is_root = nix::unistd::geteuid().is_root();
        let outside = match twin {
            Twin::OwnNamespaces => self.outside(&format!("own {act}")),
            Twin::Root if !is_root => return println!("only root can try `{act}` outside"),
            _ => self.outside(act),
        };
        if twin == Twin::SomeHosts && outside != "worked" {
            return println!("`{act}` does not work on this machine outside either: {outside}");
        }
        assert_eq!(outside, "worked", "`{act}` outside");
    }
}

/// Asserts that an act in a fresh place is refused.
pub fn refuses(act: &str, twin: Twin, errors: &[&str]) {
    Place::new().refuses(act, twin, errors);
}

/// Returns how a run ended, in one line, and all that it printed.
pub fn run(request: &SandboxRequest) -> (String, String) {
    let (end, log) = try_run(request).unwrap_or_else(|error| panic!("{error:?}"));
    let ended = match end {
        End::Exited(code) => in_words(code, log.as_bytes()),
        other => format!("{other:?}"),
    };
    (ended, log)
}

/// Runs a request and returns its end and its log.
pub fn try_run(request: &SandboxRequest) -> Result<(End, String), SandboxError> {
    run_by(&programs().child, request)
}

/// Runs a request until its first words, tries something at that moment, and cancels it.
pub fn run_until_heard(request: &SandboxRequest, mut then: impl FnMut()) -> (End, String) {
    hear(&used_launcher(&programs().child), request, |_| then())
}

/// Does the same with a launcher, and passes the words on.
pub fn hear(
    launcher: &Launcher,
    request: &SandboxRequest,
    mut then: impl FnMut(&str),
) -> (End, String) {
    let cancel = Cancel::new().unwrap();
    let mut log = Vec::new();
    let outcome = launcher.run(
        request,
        &mut |bytes| {
            log.extend_from_slice(bytes);
            then(std::str::from_utf8(bytes).unwrap());
            cancel.cancel();
        },
        &cancel,
    );
    (outcome.unwrap().end, String::from_utf8(log).unwrap())
}

/// Returns a launcher that has run something: all runs but the first enter namespaces that
/// were made ahead, and most runs are not the first.
pub fn used_launcher(child: &Path) -> Launcher {
    let launcher = Launcher::new(child.to_owned());
    let mut request = SandboxRequest::new(vec!["/probe".to_owned()]);
    request.nodes = vec![Node::Bind {
        path: "/probe".to_owned(),
        source: programs().probe.clone(),
        access: Access::ReadOnly,
    }];
    let cancel = Cancel::new().unwrap();
    launcher.run(&request, &mut |_| {}, &cancel).unwrap();
    launcher
}

/// Does the same as [`try_run`] with another executable as the sandbox.
pub fn run_by(child: &Path, request: &SandboxRequest) -> Result<(End, String), SandboxError> {
    let mut log = Vec::new();
    let outcome = used_launcher(child).run(
        request,
        &mut |bytes| log.extend_from_slice(bytes),
        &Cancel::new().unwrap(),
    )?;
    Ok((outcome.end, String::from_utf8_lossy(&log).into_owned()))
}

/// Says what the probe's exit status and last line mean.
fn in_words(code: i32, printed: &[u8]) -> String {
    let text = String::from_utf8_lossy(printed);
    let last = text.lines().next_back().unwrap_or_default();
    match code {
        0 => "worked".to_owned(),
        1 => last.to_owned(),
        _ => format!("exit status {code}: {last}"),
    }
}

/// Ends a process of the host when dropped.
pub struct HostProcess(pub std::process::Child);

impl HostProcess {
    /// Starts an act that does not end, and returns when it has printed a line.
    pub fn start(mut command: Command) -> Self {
        use std::io::BufRead;
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.as_mut().unwrap();
        std::io::BufReader::new(output)
            .read_line(&mut line)
            .unwrap();
        assert!(
            line.ends_with('\n') && !line.starts_with("cannot"),
            "{line}"
        );
        Self(child)
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Returns whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
