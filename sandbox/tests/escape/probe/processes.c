/* Other processes: seeing, stopping, reading and outliving them. */
#include "probe.h"

#include <dirent.h>
#include <sys/file.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

/* Runs until it is killed. The word marks it for `find`. */
static int wait_(char **a) {
    printf("%s\n", a[0]);
    return pause();
}

/* Prints in which namespaces it is, and runs until it is killed. */
static int namespaces(char **a) {
    (void)a;
    static const char *const kinds[] = {"cgroup", "ipc", "mnt", "net",
                                        "pid",    "time", "user", "uts"};
    char line[512] = "";
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        char path[64], name[64] = "";
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[kind]);
        if (readlink(path, name, sizeof name - 1) < 0)
            cannot("read its namespaces");
        strcat(strcat(line, kind ? " " : ""), name);
    }
    printf("%s\n", line);
    return pause();
}

/* Looks for a word among the arguments of all other processes. */
static int find(char **a) {
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        char path[300], line[4096] = {0};
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        if (atoi(entry->d_name) == getpid() || atoi(entry->d_name) == 0)
            continue;
        int fd = open(path, O_RDONLY);
        ssize_t length = read(fd, line, sizeof line - 1);
        close(fd);
        if (length > 0 && memmem(line, length, a[0], strlen(a[0])))
            return 0;
    }
    errno = ESRCH;
    return refused();
}

static int signal_(char **a) { return outcome(kill(atoi(a[0]), 0)); }
static int kill_(char **a) { return outcome(kill(atoi(a[0]), SIGKILL)); }

/* These two must never run outside: the builder is the second process of a sandbox. */
static int kill_in_sandbox(pid_t whom) {
    if (getpid() != 2)
        cannot("kill outside of a sandbox");
    return outcome(kill(whom, SIGKILL));
}

static int kill_init(char **a) { return (void)a, kill_in_sandbox(1); }
/* There is nobody else to kill, which is an error too. */
static int kill_all(char **a) { return (void)a, kill_in_sandbox(-1); }

static int process_descriptor(char **a) { return outcome(syscall(SYS_pidfd_open, atoi(a[0]), 0)); }
static int limit(char **a) { return outcome(prlimit(atoi(a[0]), RLIMIT_CORE, NULL, NULL)); }

static pid_t child(void) {
    pid_t pid = fork();
    if (pid < 0)
        cannot("fork");
    while (pid == 0)
        pause();
    return pid;
}

static int end(pid_t pid, int status) {
    kill(pid, SIGKILL);
    return status;
}

static int trace(char **a) { return outcome(ptrace(PTRACE_SEIZE, atoi(a[0]), NULL, NULL)); }

static int trace_child(char **a) {
    (void)a;
    pid_t pid = child();
    return end(pid, outcome(ptrace(PTRACE_SEIZE, pid, NULL, NULL)));
}

static char secret = 's';

static int move_memory(long number) {
    char letter = 'x';
    struct iovec here = {&letter, 1}, there = {&secret, 1};
    pid_t pid = child();
    return end(pid, outcome(syscall(number, pid, &here, 1L, &there, 1L, 0L)));
}

static int read_memory(char **a) { return (void)a, move_memory(SYS_process_vm_readv); }
static int write_memory(char **a) { return (void)a, move_memory(SYS_process_vm_writev); }

static int take_descriptor(char **a) {
    (void)a;
    pid_t pid = child();
    int fd = syscall(SYS_pidfd_open, pid, 0);
    return end(pid, fd < 0 ? 2 : outcome(syscall(SYS_pidfd_getfd, fd, 1, 0)));
}

static void lock(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || flock(fd, LOCK_EX))
        cannot("lock");
}

/* Leaves a process behind that holds a lock for ever, and returns when it holds it.
 * It writes its process id into the lock's file. */
static int daemon_(char **a) {
    int ready[2];
    char letter;
    if (pipe(ready))
        cannot("make a pipe");
    pid_t first = fork();
    if (first == 0) {
        if (setsid() < 0)
            cannot("open a session");
        if (fork())
            _exit(0);
        if (!strcmp(a[0], "session") && setsid() < 0)
            cannot("open a second session");
        if (!strcmp(a[0], "deaf"))
            for (int number = 1; number < 65; number++)
                signal(number, SIG_IGN);
        lock(a[1]);
        char text[32];
        int length = snprintf(text, sizeof text, "%d", getpid());
        int fd = open(a[1], O_WRONLY);
        if (write(fd, text, length) != length || write(ready[1], "r", 1) != 1)
            cannot("report");
        if (!strcmp(a[0], "stopped"))
            raise(SIGSTOP);
        for (;;)
            pause();
    }
    close(ready[1]);
    waitpid(first, NULL, 0);
    return read(ready[0], &letter, 1) == 1 ? 0 : 2;
}

/* Holds a lock, ignores every signal that can be ignored, and says so. */
static int deaf(char **a) {
    for (int number = 1; number < 65; number++)
        signal(number, SIG_IGN);
    lock(a[0]);
    printf("deaf\n");
    return pause();
}

/* Starts processes until the kernel refuses, at most as many as told. */
static int bomb(char **a) {
    int status = 0;
    setpgid(0, 0);
    for (int count = atoi(a[0]); count > 0; count--) {
        pid_t pid = fork();
        while (pid == 0)
            pause();
        if (pid < 0) {
            status = refused();
            break;
        }
    }
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    while (wait(NULL) > 0)
        ;
    return status;
}

const struct act processes[] = {
    {"wait", 1, wait_},
    {"namespaces", 0, namespaces},
    {"find", 1, find},
    {"signal", 1, signal_},
    {"kill", 1, kill_},
    {"kill-init", 0, kill_init},
    {"kill-all", 0, kill_all},
    {"process-descriptor", 1, process_descriptor},
    {"limit", 1, limit},
    {"trace", 1, trace},
    {"trace-child", 0, trace_child},
    {"read-memory", 0, read_memory},
    {"write-memory", 0, write_memory},
    {"take-descriptor", 0, take_descriptor},
    {"daemon", 2, daemon_},
    {"deaf", 1, deaf},
    {"bomb", 1, bomb},
    {0},
};
