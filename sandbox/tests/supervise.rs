//! Runs real programs under a supervisor: a static one, a dynamic one, and a shell. Each
//! variation has a twin without it, so that a test can fail.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_sandbox::{
    Access, Cancel, DirectoryOrder, End, KernelName, Outcome, RequestError, SandboxError,
    SandboxRequest, Supervision,
};

use common::{bind, launcher, run_with, shell};

/// More than a year: no test runs for as long.
const AHEAD: Duration = Duration::from_hours(24 * 400);

/// A directory that the sandbox sees as `/data`, with the test's C program in two forms.
struct Programs {
    directory: tempfile::TempDir,
}

impl Programs {
    /// Compiles a program as `/data/static` and `/data/dynamic`.
    fn compile(source: &str) -> Self {
        let programs = Self::none();
        let at = |name: &str| programs.directory.path().join(name);
        std::fs::write(at("program.c"), source).unwrap();
        for (name, flags) in [("static", "-static"), ("dynamic", "-pthread")] {
            let status = Command::new("cc")
                .args(["-O1", "-w", "-D_GNU_SOURCE", "-pthread", flags, "-o"])
                .arg(at(name))
                .arg(at("program.c"))
                .arg("-lrt")
                .status()
                .unwrap();
            assert!(status.success());
        }
        programs
    }

    fn none() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Returns a request that runs a shell script with the host's own `/usr`.
    fn request(&self, script: &str, supervision: Option<Supervision>) -> SandboxRequest {
        // `shell` sets a watchdog: a run that hangs ends with `End::WallLimit`.
        let mut request = shell(script);
        let data = self.directory.path();
        request.nodes.push(bind("/data", data, Access::ReadWrite));
        request.supervision = supervision;
        request
    }

    fn run(&self, script: &str, supervision: Option<Supervision>) -> (End, String) {
        let (outcome, log) = run_request(&self.request(script, supervision));
        (outcome.end, log)
    }

    /// Runs a script that must succeed, and returns its words.
    fn words(&self, script: &str, supervision: Option<Supervision>) -> Vec<String> {
        let (end, log) = self.run(script, supervision);
        assert_eq!(end, End::Exited(0), "{log}");
        log.split_whitespace().map(str::to_owned).collect()
    }
}

fn run_request(request: &SandboxRequest) -> (Outcome, String) {
    run_with(&launcher(), request)
}

fn ahead() -> Option<Supervision> {
    Some(Supervision {
        clock_ahead: Some(AHEAD),
        ..Supervision::default()
    })
}

fn everything() -> Option<Supervision> {
    Some(Supervision {
        clock_ahead: Some(AHEAD),
        kernel: Some(KernelName {
            release: "9.8.7-kiln".to_owned(),
            version: "#1 somewhere else".to_owned(),
        }),
        memory_bytes: Some(3 << 30),
        uptime_ahead: Some(AHEAD),
        cores: std::num::NonZeroU16::new(7),
        random_seed: Some([5; 32]),
        directory_order: Some(DirectoryOrder::Hashed(1)),
    })
}

/// Asserts that a time in seconds is the host's, so much ahead.
fn assert_ahead(word: &str, by: Duration) {
    let seconds: u64 = word.parse().unwrap();
    let host = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let expected = (host + by).as_secs();
    // Wide: what matters is which of two times, a year apart, it is.
    assert!(seconds.abs_diff(expected) < 3600, "{seconds} {expected}");
}

#[test]
fn every_program_sees_the_wall_clock_ahead() {
    let programs = Programs::compile(
        r#"
        #include <stdio.h>
        #include <time.h>
        #include <sys/time.h>
        #include <unistd.h>
        #include <sys/syscall.h>
        int main(void) {
            struct timespec t; struct timeval v; time_t s;
            clock_gettime(CLOCK_REALTIME, &t); printf("%ld ", t.tv_sec);
            clock_gettime(CLOCK_REALTIME_COARSE, &t); printf("%ld ", t.tv_sec);
            clock_gettime(CLOCK_TAI, &t); printf("%ld ", t.tv_sec);
            gettimeofday(&v, 0); printf("%ld ", v.tv_sec);
            printf("%ld ", time(&s)); printf("%ld ", s);
            printf("%ld\n", syscall(SYS_time, 0));
            return syscall(SYS_clock_gettime, CLOCK_REALTIME, 8) == 0;
        }"#,
    );
    for program in ["/data/static", "/data/dynamic"] {
        for (supervision, by) in [(None, Duration::ZERO), (ahead(), AHEAD)] {
            let words = programs.words(program, supervision);
            assert_eq!(words.len(), 7);
            words.iter().for_each(|word| assert_ahead(word, by));
        }
    }
    for script in [
        "date +%s",
        "printf '%(%s)T' -1",
        "python3 -c 'import time; print(int(time.time()))' || date +%s",
    ] {
        assert_ahead(&programs.words(script, ahead())[0], AHEAD);
    }
}

/// Waits until absolute times of the shifted clock: each must be reached, and not at once.
#[test]
fn waits_for_absolute_times_end_when_the_shifted_clock_says_so() {
    let programs = Programs::compile(
        r#"
        #include <errno.h>
        #include <mqueue.h>
        #include <poll.h>
        #include <pthread.h>
        #include <semaphore.h>
        #include <signal.h>
        #include <stdint.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <sys/time.h>
        #include <sys/timerfd.h>
        #include <time.h>
        #include <unistd.h>
        static struct timespec mono(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t; }
        static struct timespec soon(void) {
            struct timespec t; clock_gettime(CLOCK_REALTIME, &t);
            t.tv_nsec += 50000000;
            if (t.tv_nsec >= 1000000000) { t.tv_nsec -= 1000000000; t.tv_sec++; }
            return t;
        }
        static int early(struct timespec a) {
            struct timespec b = mono();
            return (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec < 49000000;
        }
        static volatile int rang;
        static void ring(int s) { rang++; }
        #define CHECK(what) do { if (!(what)) { printf("%d: %s (errno %d)\n", __LINE__, #what, errno); return 1; } } while (0)
        int main(void) {
            signal(SIGALRM, ring);
            struct timespec a = mono(), t = soon();
            CHECK(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, 0) == 0 && !early(a));
            CHECK(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, 0) == 0);

            sem_t s; sem_init(&s, 0, 0); a = mono(); t = soon();
            CHECK(sem_timedwait(&s, &t) == -1 && errno == ETIMEDOUT && !early(a));

            pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER; pthread_cond_t c = PTHREAD_COND_INITIALIZER;
            pthread_mutex_lock(&m); a = mono(); t = soon();
            CHECK(pthread_cond_timedwait(&c, &m, &t) == ETIMEDOUT && !early(a));

            int fd = timerfd_create(CLOCK_REALTIME, 0);
            uint64_t n; a = mono(); struct itimerspec i = { .it_value = soon() };
            CHECK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &i, 0) == 0);
            CHECK(read(fd, &n, 8) == 8 && n == 1 && !early(a));
            int steady = timerfd_create(CLOCK_MONOTONIC, 0);
            i.it_value = mono(); i.it_value.tv_sec += 1000;
            CHECK(timerfd_settime(steady, TFD_TIMER_ABSTIME, &i, 0) == 0);
            CHECK(timerfd_gettime(steady, &i) == 0 && i.it_value.tv_sec >= 990);

            /* It rings again, as everything that must interrupt a wait: on a slow machine
               the first may come before the wait. */
            timer_t timer; a = mono(); i.it_value = soon(); i.it_interval.tv_nsec = 20000000;
            CHECK(timer_create(CLOCK_REALTIME, 0, &timer) == 0);
            CHECK(timer_settime(timer, TIMER_ABSTIME, &i, 0) == 0);
            while (!rang) pause();
            CHECK(!early(a) && timer_delete(timer) == 0);

            /* Twice in a row from one register: it must hold what the program put there. */
            unsigned word = 1; long r, first; a = mono(); t = soon();
            struct timespec *last;
            asm volatile(
                "mov %4, %%r10\n mov $1, %%edx\n mov $0x189, %%esi\n mov %3, %%rdi\n mov $-1, %%r9d\n"
                "mov $202, %%eax\n syscall\n mov %%rax, %1\n mov $202, %%eax\n syscall\n mov %%r10, %2"
                : "=&a"(r), "=&r"(first), "=&r"(last) : "r"(&word), "r"(&t)
                : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory");
            CHECK(first == -ETIMEDOUT && r == -ETIMEDOUT);
            CHECK(last == &t && !early(a));

            /* A signal interrupts a wait, which the program then goes on with. */
            struct sigaction act = { .sa_handler = ring, .sa_flags = SA_RESTART };
            sigaction(SIGALRM, &act, 0); rang = 0;
            clock_gettime(CLOCK_REALTIME, &t); t.tv_sec += 1000;
            struct itimerval v = { { 0, 20000 }, { 0, 20000 } }, off = { 0 };
            setitimer(ITIMER_REAL, &v, 0);
            CHECK(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, 0) == EINTR && rang);
            rang = 0;
            CHECK(sem_timedwait(&s, &t) == -1 && errno == EINTR && rang);
            setitimer(ITIMER_REAL, &off, 0);
            CHECK(poll(0, 0, 10) == 0);
            puts("good");
            return 0;
        }"#,
    );
    for program in ["/data/static", "/data/dynamic"] {
        for supervision in [None, ahead(), everything()] {
            assert_eq!(programs.words(program, supervision), ["good"]);
        }
    }
}

/// A stopped process that goes on waits to the same end.
#[test]
fn stopping_a_program_does_not_change_how_long_it_waits() {
    let programs = Programs::compile(
        r#"
        #include <stdio.h>
        #include <time.h>
        int main(void) {
            struct timespec t; clock_gettime(CLOCK_REALTIME, &t); t.tv_sec += 1;
            puts("waiting"); fflush(stdout);
            int r = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, 0);
            printf("%d\n", r);
            return r;
        }"#,
    );
    let script = "exec 3< <(/data/static & echo $!; wait $!)
        read -u 3 pid; read -u 3 waiting
        sleep 0.2; kill -STOP $pid; sleep 0.2
        until grep -q 'State:.T' /proc/$pid/status; do :; done
        kill -CONT $pid; read -u 3 result; echo $waiting $result";
    assert_eq!(programs.words(script, ahead()), ["waiting", "0"]);
}

#[test]
fn the_machine_is_what_the_request_says() {
    let programs = Programs::compile(
        r#"
        #include <sched.h>
        #include <stdio.h>
        #include <sys/sysinfo.h>
        #include <sys/utsname.h>
        #include <unistd.h>
        int main(void) {
            struct utsname u; struct sysinfo i; cpu_set_t set;
            uname(&u); sysinfo(&i);
            sched_getaffinity(0, sizeof set, &set);
            printf("%s %s %s %s ", u.sysname, u.nodename, u.release, u.machine);
            printf("%lu %d ", i.totalram * i.mem_unit, i.freeram * i.mem_unit <= i.totalram * i.mem_unit);
            printf("%d ", i.uptime > 399L * 86400);
            printf("%d ", CPU_COUNT(&set));
            CPU_ZERO(&set); CPU_SET(sched_getcpu(), &set);
            sched_setaffinity(0, sizeof set, &set); CPU_ZERO(&set);
            sched_getaffinity(getpid(), sizeof set, &set);
            printf("%d %s\n", CPU_COUNT(&set), u.version);
        }"#,
    );
    let told = [
        "Linux",
        "localhost",
        "9.8.7-kiln",
        "x86_64",
        "3221225472",
        "1",
        "1",
        "7",
        "1",
        "#1",
    ];
    for program in ["/data/static", "/data/dynamic"] {
        assert_eq!(programs.words(program, everything())[..10], told);
        let real = programs.words(program, None);
        for differs in [2, 4, 6, 7] {
            assert_ne!(real[differs], told[differs]);
        }
    }
    let words = programs.words("uname -r; nproc; uname -v", everything());
    assert_eq!(words.join(" "), "9.8.7-kiln 7 #1 somewhere else");
    // `/proc` agrees, where a C library and configure scripts look.
    let script = "cat /proc/sys/kernel/osrelease /proc/sys/kernel/version
        grep -c ^processor /proc/cpuinfo; grep -c '^cpu[0-9]' /proc/stat
        sed -n 's/MemTotal: *//p' /proc/meminfo; getconf _NPROCESSORS_ONLN";
    let words = programs.words(script, everything());
    assert_eq!(
        words.join(" "),
        "9.8.7-kiln #1 somewhere else 7 7 3145728 kB 7"
    );
}

#[test]
fn random_bytes_come_from_the_seed() {
    let programs = Programs::compile(
        r#"
        #include <errno.h>
        #include <stdio.h>
        #include <sys/auxv.h>
        #include <sys/random.h>
        int main(void) {
            unsigned char b[300]; unsigned char *a = (void *)getauxval(AT_RANDOM);
            if (getrandom(b, sizeof b, 0) != sizeof b) return 1;
            if (getrandom(b, sizeof b, 64) != -1 || errno != EINVAL) return 2;
            if (getrandom((void *)8, 16, 0) != -1 || errno != EFAULT) return 3;
            for (int i = 0; i < 16; i++) printf("%02x", a[i]);
            for (int i = 0; i < 300; i++) printf("%02x", b[i]);
            puts("");
        }"#,
    );
    let seeded = |number: u8| {
        Some(Supervision {
            random_seed: Some([number; 32]),
            ..Supervision::default()
        })
    };
    for program in ["/data/static", "/data/dynamic"] {
        let script = format!("{program}; {program}; mktemp -u");
        let first = programs.words(&script, seeded(1));
        assert_ne!(first[0], first[1], "one stream, not one block");
        assert_eq!(programs.words(&script, seeded(1)), first);
        let other = programs.words(&script, seeded(2));
        assert_ne!(other, first);
        assert_ne!(other[0][..32], first[0][..32], "AT_RANDOM");
        assert_ne!(programs.words(&script, None), programs.words(&script, None));
    }
}

/// Prints a directory by small reads, going back once, and deletes while reading if asked.
const LISTING: &str = r#"
    #include <dirent.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    struct entry { uint64_t ino; int64_t off; uint16_t len; unsigned char type; char name[]; };
    struct old { unsigned long ino, off; unsigned short len; char name[]; };
    int main(int count, char **words) {
        char buffer[64]; long n; int fd = open(words[1], O_RDONLY | O_DIRECTORY);
        if (!strcmp(words[2], "small"))
            while ((n = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0)
                for (long at = 0; at < n; at += ((struct entry *)(buffer + at))->len)
                    puts(((struct entry *)(buffer + at))->name);
        if (!strcmp(words[2], "old"))
            while ((n = syscall(SYS_getdents, fd, buffer, sizeof buffer)) > 0)
                for (long at = 0; at < n; at += ((struct old *)(buffer + at))->len)
                    puts(((struct old *)(buffer + at))->name);
        if (!strcmp(words[2], "delete"))
            while ((n = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0)
                for (long at = 0; at < n; at += ((struct entry *)(buffer + at))->len) {
                    struct entry *e = (void *)(buffer + at); puts(e->name); unlinkat(fd, e->name, 0);
                }
        if (!strcmp(words[2], "back")) {
            DIR *d = fdopendir(fd); struct dirent *e; long places[1000]; char names[1000][64]; int k = 0;
            for (;;) { places[k] = telldir(d); if (!(e = readdir(d))) break; strcpy(names[k++], e->d_name); puts(e->d_name); }
            for (int i = k - 1; i >= 0; i -= 3) {
                seekdir(d, places[i]); e = readdir(d);
                if (!e || strcmp(e->d_name, names[i])) { printf("lost %s\n", names[i]); return 1; }
            }
            rewinddir(d); for (n = 0; readdir(d); n++); if (n != k) return 2;
        }
        if (n < 0 || fd < 0) return 3;
        if (syscall(SYS_getdents64, fd, buffer, 8) != 0 && !strcmp(words[2], "small")) return 4;
        lseek(fd, 0, SEEK_SET); if (syscall(SYS_getdents64, fd, buffer, 8) != -1) return 5;
        if (syscall(SYS_getdents64, 0, buffer, 64) != -1 || syscall(SYS_getdents64, 99, buffer, 64) != -1) return 6;
    }"#;

#[test]
fn directories_are_listed_in_the_order_asked_for() {
    let programs = Programs::compile(LISTING);
    let ordered = |order| {
        Some(Supervision {
            directory_order: Some(order),
            ..Supervision::default()
        })
    };
    // On tmpfs, and on what holds the host's temporary files.
    for place in ["/tmp/d", "/data/d"] {
        let fill = format!("mkdir -p {place}; cd {place}; touch $(seq 300); cd /;");
        let list = |supervision, way: &str| programs.words(&format!("{fill} {way}"), supervision);
        for program in ["/data/static", "/data/dynamic"] {
            let ways = ["small", "old", "back"].map(|way| format!("{program} {place} {way}"));
            let own = list(None, &ways[0]);
            assert_eq!(own.len(), 302);
            let mut reversed: Vec<_> = own.iter().rev().cloned().collect();
            reversed.retain(|name| !name.starts_with('.'));
            for way in &ways {
                let listed = list(ordered(DirectoryOrder::Reversed), way);
                assert_eq!(listed[..2], [".", ".."]);
                assert_eq!(listed[2..], reversed[..], "{way}");
            }
            let one = list(ordered(DirectoryOrder::Hashed(1)), &ways[0]);
            assert_eq!(list(ordered(DirectoryOrder::Hashed(1)), &ways[2]), one);
            assert_ne!(list(ordered(DirectoryOrder::Hashed(2)), &ways[0]), one);
            let sorted = |names: &[String]| -> BTreeSet<String> { names.iter().cloned().collect() };
            assert_eq!(sorted(&one), sorted(&own));
            // Each name once, and none is left.
            let delete = format!("{program} {place} delete; find {place} -type f");
            for order in [DirectoryOrder::Reversed, DirectoryOrder::Hashed(1)] {
                let listed = list(ordered(order), &delete);
                assert_eq!((listed.len(), sorted(&listed)), (302, sorted(&own)));
            }
        }
        let remove = "ls -U | tail -n 1; rm -r d && mkdir d && rmdir d && echo gone";
        let words = list(
            ordered(DirectoryOrder::Hashed(3)),
            &format!("cd {place}/..; {remove}"),
        );
        assert_eq!(words[1], "gone");
    }
    let shell = "mkdir /tmp/e; cd /tmp/e; touch a b c d e; ls -U";
    let own = programs.words(shell, None);
    let reversed: Vec<_> = own.into_iter().rev().collect();
    assert_eq!(
        programs.words(shell, ordered(DirectoryOrder::Reversed)),
        reversed
    );
}

/// Threads that each ask without pause, execute from a thread that is not the first, and
/// children made every way, with signals that interrupt them.
#[test]
fn threads_forks_and_executions_go_on_as_without() {
    let programs = Programs::compile(
        r#"
        #include <dirent.h>
        #include <errno.h>
        #include <pthread.h>
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <spawn.h>
        #include <sys/time.h>
        #include <sys/wait.h>
        #include <sys/prctl.h>
        #include <time.h>
        #include <unistd.h>
        static char *self;
        static void *ask(void *unused) {
            struct timespec a, b = {0};
            for (int i = 0; i < 300; i++) {
                if (clock_gettime(CLOCK_REALTIME, &a)) exit(40);
                if (a.tv_sec < b.tv_sec) exit(41);
                b = a;
                if (i % 50 == 0) { DIR *d = opendir("/usr"); int n = 0; while (readdir(d)) n++; closedir(d); if (n < 5) exit(42); }
            }
            return 0;
        }
        static void *become(void *unused) { execl(self, self, "leaf", "7", NULL); exit(43); }
        static void *miss(void *unused) { for (int i = 0; i < 20; i++) execl("/none", "none", NULL); return 0; }
        static void tick(int s) {}
        static int status(pid_t pid) {
            int s; while (waitpid(pid, &s, 0) < 0) if (errno != EINTR) exit(44);
            return WIFEXITED(s) ? WEXITSTATUS(s) : 1000 + WTERMSIG(s);
        }
        int main(int count, char **words) {
            self = words[0];
            if (count > 2) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); return t.tv_sec > 1000 ? atoi(words[2]) : 45; }
            struct sigaction act = { .sa_handler = tick, .sa_flags = SA_RESTART }; sigaction(SIGALRM, &act, 0);
            struct itimerval v = { {0, 3000}, {0, 3000} }; setitimer(ITIMER_REAL, &v, 0);
            for (int round = 0; round < 10; round++) {
                pthread_t threads[4]; pid_t pid;
                for (int i = 0; i < 4; i++) pthread_create(threads + i, 0, i ? ask : miss, 0);
                if (!(pid = fork())) { pthread_t t; pthread_create(&t, 0, become, 0); pthread_create(&t, 0, become, 0); ask(0); for (;;) pause(); }
                if (status(pid) != 7) return 1;
                if (!(pid = vfork())) { execl("/none", "none", NULL); execl(self, self, "leaf", "8", NULL); _exit(46); }
                if (status(pid) != 8) return 2;
                char *leaf[] = { self, "leaf", "9", NULL }, *none[] = { NULL };
                if (posix_spawn(&pid, self, 0, 0, leaf, none) || status(pid) != 9) return 3;
                if (!(pid = fork())) { execl("/none", "none", NULL); raise(SIGSTOP); raise(SIGTERM); _exit(47); }
                int s; while (waitpid(pid, &s, WUNTRACED) < 0 && errno == EINTR);
                if (!WIFSTOPPED(s) || WSTOPSIG(s) != SIGSTOP) return 4;
                kill(pid, SIGCONT);
                if (status(pid) != 1000 + SIGTERM) return 5;
                if (!(pid = fork())) { prctl(PR_SET_DUMPABLE, 0); ask(0); execl(self, self, "leaf", "6", NULL); _exit(48); }
                if (status(pid) != 6) return 6;
                if (!(pid = fork())) { pthread_t t; pthread_create(&t, 0, become, 0); _exit(7); }
                if (status(pid) != 7) return 7;
                for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
            }
            puts("good");
            return 0;
        }"#,
    );
    for program in ["/data/static", "/data/dynamic"] {
        for supervision in [None, everything()] {
            let (end, log) = programs.run(program, supervision);
            assert_eq!((end, log.as_str()), (End::Exited(0), "good\n"));
        }
    }
}

#[test]
fn a_parallel_make_sees_no_skew() {
    let programs = Programs::none();
    let script = r"
        mkdir /tmp/m; cd /tmp/m; touch $(seq 40 | sed s/$/.in/)
        printf 'all: $(patsubst %%.in,%%.out,$(wildcard *.in))\n%%.out: %%.in\n\tsleep 0.0$(*); date +%%Y >$@\n' >Makefile
        make -j2 >log 2>&1 || { cat log; exit 1; }
        make -j2 | tail -1; grep -ci 'skew\|future' log; cat *.out | sort -u | wc -l";
    let words = programs.words(script, everything());
    assert_eq!(words.join(" "), "make: Nothing to be done for 'all'. 0 1");
}

#[test]
fn a_build_cannot_see_or_reach_its_supervisor() {
    let programs = Programs::none();
    let script = "grep TracerPid /proc/self/status; set -- /proc/[0-9]*; echo $#; \
                  ls /proc/self/fd";
    let with = programs.words(script, everything());
    assert_eq!(with, programs.words(script, None));
    assert_eq!(with[..2], ["TracerPid:", "0"]);
}

#[test]
fn the_outcome_is_the_same() {
    let programs = Programs::none();
    for script in [
        "exit 3",
        "kill -SEGV $$",
        "exec /none",
        "(exit 5) & wait $!",
    ] {
        let (plain, log) = run_request(&programs.request(script, None));
        let (watched, same) = run_request(&programs.request(script, everything()));
        assert_eq!((watched.end, same), (plain.end, log));
    }
    let busy = "for i in {1..100000}; do :; done; head -c 30000000 /dev/zero | tail -c 1 | wc -c";
    let (outcome, log) = run_request(&programs.request(busy, everything()));
    assert_eq!((outcome.end, log.trim()), (End::Exited(0), "1"));
    assert!(outcome.usage.cpu > Duration::ZERO && outcome.usage.peak_memory_bytes > 20_000_000);
    let mut missing = programs.request("", everything());
    missing.command = vec!["/bin/does-not-exist".to_owned()];
    match launcher().run(&missing, &mut |_| {}, &Cancel::new().unwrap()) {
        Err(SandboxError::Step { step, .. }) => assert!(step.contains("does-not-exist"), "{step}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_remains_of_runs_that_are_ended() {
    let programs = Programs::none();
    let children = || {
        let path = format!("/proc/self/task/{}/children", nix::unistd::gettid());
        std::fs::read_to_string(path).unwrap()
    };
    let before = children();
    let wait = "while :; do date >/dev/null; done & while :; do ls /usr >/dev/null; done";
    let mut slow = programs.request(wait, everything());
    slow.limits.wall = Some(Duration::from_millis(500));
    for _ in 0..5 {
        assert_eq!(run_request(&slow).0.end, End::WallLimit);
    }
    let cancel = Cancel::new().unwrap();
    let outcome = launcher()
        .run(
            &programs.request("echo; sleep 1000", everything()),
            &mut |_| cancel.cancel(),
            &cancel,
        )
        .unwrap();
    assert_eq!(outcome.end, End::Cancelled);
    // What a build leaves running dies with it.
    let left = "while :; do date; done >/data/beat & until test -s /data/beat; do :; done";
    assert_eq!(programs.run(left, everything()).0, End::Exited(0));
    let beat = || {
        std::fs::metadata(programs.directory.path().join("beat"))
            .unwrap()
            .len()
    };
    let last = beat();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(beat(), last);
    assert_eq!(children(), before);
}

/// Returns the supervisors of a process's runs: children of its server's monitors that are
/// outside the PID namespaces below.
fn supervisors_of(parent: u32) -> Vec<i32> {
    let children = |pid: &str| -> Vec<String> {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let servers: Vec<String> = std::fs::read_dir(format!("/proc/{parent}/task"))
        .unwrap()
        .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    let outside = |pid: &String| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("NSpid:"));
        line.is_some_and(|line| line.split_whitespace().count() == 2)
    };
    servers
        .iter()
        .flat_map(|server| children(server))
        .flat_map(|monitor| children(&monitor))
        .filter(outside)
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// The run of a supervisor that dies ends, and does not count. A process of its own runs
/// it, so that no other test's supervisor is found.
#[test]
fn a_run_without_its_supervisor_is_an_error() {
    const ALONE: &str = "KILN_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_run_without_its_supervisor_is_an_error"])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let programs = Programs::none();
    let request = programs.request("echo ready; while :; do date; done", everything());
    let mut killed = false;
    let mut kill = |_: &[u8]| {
        let found = supervisors_of(std::process::id());
        if let ([supervisor], false) = (found.as_slice(), killed) {
            let pid = nix::unistd::Pid::from_raw(*supervisor);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            killed = true;
        }
    };
    let result = launcher().run(&request, &mut kill, &Cancel::new().unwrap());
    assert!(killed);
    match result {
        Err(SandboxError::Supervision { what, .. }) => assert!(what.contains("go on"), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_no_kernel_says_is_refused() {
    let programs = Programs::none();
    let refused = |supervision| {
        let request = programs.request("true", Some(supervision));
        match launcher().run(&request, &mut |_| {}, &Cancel::new().unwrap()) {
            Err(SandboxError::Request(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let far = Duration::from_hours(24 * 365 * 101);
    let clock = Supervision {
        clock_ahead: Some(far),
        ..Supervision::default()
    };
    assert_eq!(refused(clock), RequestError::Ahead(far));
    let name = Supervision {
        kernel: Some(KernelName {
            release: "6".repeat(65),
            version: "1".to_owned(),
        }),
        ..Supervision::default()
    };
    assert_eq!(refused(name), RequestError::KernelName("6".repeat(65)));
}
