//! Turns each knob of a request, and sees a builder observe it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::AsFd;

use kiln_sandbox::{
    Access, Cancel, Clocks, End, Keyboard, Machine, Node, Release, RequestError, SandboxError,
    SandboxRequest, Stdin, Stream, Terminal,
};

use common::{bind, compile, launcher, printed, run_with, shell};

/// Asserts that what a script prints changes from one text to another with the request.
fn observed(script: &str, before: &str, change: impl Fn(&mut SandboxRequest), after: &str) {
    let mut request = shell(script);
    assert_eq!(printed(&request).trim(), before, "{script}");
    change(&mut request);
    assert_eq!(printed(&request).trim(), after, "{script}");
}

#[test]
fn names() {
    observed(
        "uname -n",
        "localhost",
        |r| r.host_name = "other".to_owned(),
        "other",
    );
    observed(
        "cat /proc/sys/kernel/domainname",
        "(none)",
        |r| r.domain_name = "example".to_owned(),
        "example",
    );
}

#[test]
fn users_and_modes() {
    observed(
        "id -u; id -g",
        "1000\n100",
        |r| (r.uid, r.gid) = (4321, 1234),
        "4321\n1234",
    );
    let script = "umask 2>&1; touch f; stat -c %a f";
    observed(script, "0022\n644", |r| r.umask = 0o077, "0077\n600");
    // Even where it is called root inside, it is nobody.
    observed(
        "id -u; chown 1:1 /tmp 2>/dev/null || echo no",
        "1000\nno",
        |r| r.uid = 0,
        "0\nno",
    );
}

#[test]
fn processors() {
    let script = "nproc; grep -c processor /proc/cpuinfo; grep -c '^cpu[0-9]' /proc/stat";
    let one = "1\n1\n1";
    let mut request = shell(script);
    request.cores = Some(BTreeSet::from([0]));
    assert_eq!(printed(&request).trim(), one);
    request.cores = None;
    let all = std::thread::available_parallelism().unwrap();
    assert_eq!(printed(&request).trim(), format!("{all}\n{all}\n{all}"));
}

#[test]
fn addresses() {
    let script =
        "for i in 1 2 3 4 5 6; do sed -n 's/ .*stack.*//p' /proc/self/maps; done | sort -u | wc -l";
    let mut request = shell(script);
    assert_eq!(printed(&request).trim(), "1");
    request.aslr = true;
    let different: u32 = printed(&request).trim().parse().unwrap();
    assert!(different > 1, "{different}");
}

#[test]
fn the_kernel_release() {
    let mut request = shell("uname -r");
    assert!(!printed(&request).starts_with("2.6."));
    request.release = Release::Series26;
    assert!(printed(&request).starts_with("2.6."));
}

#[test]
fn process_numbers() {
    observed("echo $$", "2", |r| r.first_pid = Some(2500), "2500");
}

#[test]
fn clocks_since_boot() {
    let directory = tempfile::tempdir().unwrap();
    let program = compile(
        directory.path(),
        "clocks",
        "#include <stdio.h>\n#include <time.h>\n\
         int main(void) { struct timespec m, b; clock_gettime(CLOCK_MONOTONIC, &m);\n\
         clock_gettime(CLOCK_BOOTTIME, &b); printf(\"%ld %ld\\n\", (long)m.tv_sec, (long)b.tv_sec); }",
    );
    let mut request = SandboxRequest::new(vec!["/clocks".to_owned()]);
    request
        .nodes
        .push(bind("/clocks", program, Access::ReadOnly));
    let read = |request: &SandboxRequest| -> Vec<u32> {
        let text = printed(request);
        text.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    };
    let before = read(&request);
    request.clocks = Clocks {
        monotonic_seconds: 1_000_000,
        boot_seconds: 50_000_000,
    };
    let after = read(&request);
    // They say when the run started, and go on from there.
    for (read, start) in [
        (before[0], 0),
        (before[1], 0),
        (after[0], 1_000_000),
        (after[1], 50_000_000),
    ] {
        assert!((start..start + 60).contains(&read), "{before:?} {after:?}");
    }
}

#[test]
fn what_proc_tells_of_the_machine() {
    let mut request = shell(
        "cat /proc/loadavg /proc/uptime /proc/version /proc/cmdline /proc/interrupts; \
         head -1 /proc/meminfo; cat /proc/sys/kernel/random/boot_id",
    );
    let told = "0.00 0.00 0.00 1/1 1\n0.00 0.00\nMemTotal:        4194304 kB\n\
                00000000-0000-0000-0000-000000000000\n";
    assert_eq!(printed(&request), told);
    request.limits.memory_bytes = Some(1 << 30);
    assert!(printed(&request).contains("MemTotal:        1048576 kB"));
    request.machine = Machine::Host;
    assert!(printed(&request).contains("Linux version"));
    // What commands the machine or tells its secrets is hidden all the same.
    request.command[2] =
        "cat /proc/kallsyms /proc/keys /proc/timer_list 2>/dev/null | wc -c".to_owned();
    assert_eq!(printed(&request).trim(), "0");
    assert!(!std::fs::read("/proc/kallsyms").unwrap().is_empty());
}

#[test]
fn an_empty_directory_in_memory() {
    let mut request = shell(
        "stat -f -c %T /box; stat -c %a /box; echo x > /box/file; \
         head -c 2000000 /dev/zero > /box/large 2>/dev/null; stat -c %s /box/large",
    );
    request.nodes.push(Node::Tmpfs {
        path: "/box".to_owned(),
        size_bytes: Some(1 << 20),
        mode: 0o700,
    });
    let text = printed(&request);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["tmpfs", "700"]);
    assert!(lines[2].parse::<u64>().unwrap() < 1 << 20, "{text}");
}

#[test]
fn a_copy_can_be_written_and_the_original_stays() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("file"), "before\n").unwrap();
    std::os::unix::fs::symlink("inside/file", directory.path().join("link")).unwrap();
    let mut request = shell(
        "cat link; stat -c '%Y %a' inside/file; readlink link; echo after > link; cat inside/file; \
         stat -f -c %T .",
    );
    let file = std::fs::File::options()
        .write(true)
        .open(inside.join("file"))
        .unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567_890);
    file.set_modified(time).unwrap();
    "/build".clone_into(&mut request.working_directory);
    request.nodes.push(Node::Copy {
        path: "/build".to_owned(),
        source: directory.path().to_owned(),
        size_bytes: None,
    });
    assert_eq!(
        printed(&request),
        "before\n1234567890 644\ninside/file\nafter\ntmpfs\n"
    );
    assert_eq!(
        std::fs::read_to_string(inside.join("file")).unwrap(),
        "before\n"
    );
}

#[test]
fn standard_input() {
    let script = "readlink /proc/self/fd/0 | sed 's/:.*//'; cat";
    let mut request = shell(script);
    assert_eq!(printed(&request), "/dev/null\n");
    request.stdin = Stdin::EmptyPipe;
    assert_eq!(printed(&request), "pipe\n");
    request.command[2] = "timeout 9 cat /dev/stdin && echo out > /dev/stdout".to_owned();
    assert_eq!(printed(&request), "out\n");
    request.command[2] = script.to_owned();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"typed\n").unwrap();
    request.stdin = Stdin::File(file.path().to_owned());
    let text = printed(&request);
    assert!(text.ends_with("typed\n"), "{text}");
    let name = file.path().file_name().unwrap().to_str().unwrap();
    assert!(!text.contains(name), "the file's place is told: {text}");
    // It can be read, and not be written to.
    request.command[2] = "echo x > /proc/self/fd/0".to_owned();
    assert_ne!(run_with(&launcher(), &request).0.end, End::Exited(0));
    assert_eq!(std::fs::read(file.path()).unwrap(), b"typed\n");
}

const TERMINAL: Terminal = Terminal {
    rows: 33,
    columns: 77,
};

#[test]
fn a_terminal() {
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size && echo control > /dev/tty && \
                  echo out > /dev/stdout";
    let mut request = shell(script);
    assert_ne!(run_with(&launcher(), &request).0.end, End::Exited(0));
    request.terminal = Some(TERMINAL);
    assert_eq!(printed(&request), "33 77\ncontrol\nout\n");
    request.stdin = Stdin::EmptyPipe;
    match launcher().run(&request, &mut |_| {}, &Cancel::new().unwrap()) {
        Err(SandboxError::Request(RequestError::TerminalInput)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_conversation() {
    let mut request = shell("read word; echo \"heard $word\"; cat; echo end");
    request.terminal = Some(TERMINAL);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"hello\nmore\n").unwrap();
    drop(writer);
    let mut log = Vec::new();
    let outcome = launcher()
        .converse(
            &request,
            Keyboard {
                input: reader.as_fd(),
                resized: None,
            },
            &mut |bytes| log.extend_from_slice(bytes),
            &Cancel::new().unwrap(),
        )
        .unwrap();
    let text = String::from_utf8(log).unwrap();
    assert_eq!(outcome.end, End::Exited(0), "{text}");
    assert!(
        text.contains("heard hello\r\n") && text.contains("more\r\n"),
        "{text}"
    );
    assert!(text.ends_with("end\r\n"), "{text}");
}

#[test]
fn a_terminal_that_changes_its_size() {
    let mut request =
        shell("trap 'stty size; exit 0' WINCH; stty size; while :; do sleep 0.05; done");
    request.terminal = Some(TERMINAL);
    let person = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
    let (resized, mut tell) = std::io::pipe().unwrap();
    let keyboard = Keyboard {
        input: person.as_fd(),
        resized: Some(resized.as_fd()),
    };
    let mut log = Vec::new();
    let mut told = false;
    let mut listen = |bytes: &[u8]| {
        log.extend_from_slice(bytes);
        if !told && log.ends_with(b"\n") {
            told = true;
            let mut size = rustix::termios::tcgetwinsize(&person).unwrap();
            (size.ws_row, size.ws_col) = (50, 120);
            rustix::termios::tcsetwinsize(&person, size).unwrap();
            tell.write_all(b"!").unwrap();
        }
    };
    let cancel = Cancel::new().unwrap();
    let outcome = launcher()
        .converse(&request, keyboard, &mut listen, &cancel)
        .unwrap();
    assert_eq!(outcome.end, End::Exited(0));
    let (rows, columns) = (TERMINAL.rows, TERMINAL.columns);
    let expected = format!("{rows} {columns}\r\n50 120\r\n");
    assert_eq!(String::from_utf8(log).unwrap(), expected);
}

#[test]
fn two_streams() {
    let script = "for i in 1 2 3; do echo out $i; echo error $i >&2; done; \
                  head -c 300000 /dev/zero >&2";
    let mut request = shell(script);
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let mut listen = |stream, bytes: &[u8]| match stream {
        Stream::Output => output.extend_from_slice(bytes),
        Stream::Errors => errors.extend_from_slice(bytes),
    };
    let cancel = Cancel::new().unwrap();
    let outcome = launcher()
        .run_apart(&request, &mut listen, &cancel)
        .unwrap();
    assert_eq!(outcome.end, End::Exited(0));
    assert_eq!(output, b"out 1\nout 2\nout 3\n");
    assert!(errors.starts_with(b"error 1\nerror 2\nerror 3\n\0"));
    assert_eq!(errors.len(), 24 + 300_000);
    assert_eq!(outcome.usage.log_bytes, 18 + 24 + 300_000);
    // The limit is one for both.
    request.limits.log_bytes = Some(100_000);
    let outcome = launcher()
        .run_apart(&request, &mut |_, _| {}, &cancel)
        .unwrap();
    assert_eq!(
        (outcome.end, outcome.usage.log_bytes),
        (End::LogLimit, 100_000)
    );
    // Either can be opened again by its name, also where root asked.
    request.limits.log_bytes = None;
    request.command[2] = "echo a > /dev/stdout; echo b > /dev/stderr".to_owned();
    let mut seen = Vec::new();
    launcher()
        .run_apart(
            &request,
            &mut |stream, bytes| seen.push((stream, bytes.to_vec())),
            &cancel,
        )
        .unwrap();
    assert!(
        seen.contains(&(Stream::Output, b"a\n".to_vec())),
        "{seen:?}"
    );
    assert!(
        seen.contains(&(Stream::Errors, b"b\n".to_vec())),
        "{seen:?}"
    );
}

#[test]
fn memory() {
    let script = "head -c 400000000 /dev/zero | tail | wc -c";
    let mut request = shell(script);
    assert_eq!(printed(&request).trim(), "400000000");
    request.limits.memory_bytes = Some(100 << 20);
    assert_eq!(run_with(&launcher(), &request).1.lines().last(), Some("0"));
}

/// What the caller decides by environment and nodes arrives as it is.
#[test]
fn what_the_caller_gives_arrives() {
    let mut request = shell("pwd; date +%H; echo \"$HOME $EXTRA ${PATH##*:} $out\"; touch $out/x");
    let deep = "/deep/directory/with/a/long/name/for/builds";
    let scratch = tempfile::tempdir().unwrap();
    request.nodes.push(Node::Tmpfs {
        path: deep.to_owned(),
        size_bytes: None,
        mode: 0o755,
    });
    request.nodes.push(bind(
        "/kiln/store/scratch-name",
        scratch.path(),
        Access::ReadWrite,
    ));
    deep.clone_into(&mut request.working_directory);
    request.environment = BTreeMap::from(
        [
            ("EXTRA", "a b"),
            ("HOME", "/elsewhere"),
            ("PATH", "/usr/bin:/tail"),
            ("TZ", "XXX-5"),
            ("out", "/kiln/store/scratch-name"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let here = printed(&request);
    let lines: Vec<&str> = here.lines().collect();
    assert_eq!(lines[0], deep);
    assert_eq!(lines[2], "/elsewhere a b /tail /kiln/store/scratch-name");
    assert!(scratch.path().join("x").exists());
    request
        .environment
        .insert("TZ".to_owned(), "XXX-17".to_owned());
    assert_ne!(printed(&request).lines().nth(1), Some(lines[1]));
}

#[test]
fn the_size_of_what_is_in_memory() {
    let script = "for d in /tmp /dev/shm; do stat -f -c '%b %S' $d; done";
    let mut request = shell(script);
    request.limits.scratch_bytes = Some(8 << 20);
    assert_eq!(printed(&request), "2048 4096\n2048 4096\n");
}
