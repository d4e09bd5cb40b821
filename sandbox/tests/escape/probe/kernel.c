/* Parts of the kernel that no build needs. */
#include "probe.h"

#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/kcmp.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>

static int add_key(char **a) {
    (void)a;
    return outcome(syscall(SYS_add_key, "user", "probe", "x", 1, KEY_SPEC_PROCESS_KEYRING));
}

static int join_keyring(char **a) {
    (void)a;
    return outcome(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
}

static int request_key(char **a) {
    syscall(SYS_add_key, "user", "probe", "x", 1, KEY_SPEC_PROCESS_KEYRING);
    (void)a;
    return outcome(syscall(SYS_request_key, "user", "probe", NULL, 0));
}

static int io_uring(char **a) {
    (void)a;
    struct io_uring_params parameters = {0};
    return outcome(syscall(SYS_io_uring_setup, 4, &parameters));
}

static int bpf(char **a) {
    (void)a;
    union bpf_attr map = {
        .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    return outcome(syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
}

static int perf(char **a) {
    (void)a;
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE,
                                    .size = sizeof event,
                                    .config = PERF_COUNT_SW_TASK_CLOCK,
                                    .exclude_kernel = 1,
                                    .exclude_hv = 1};
    return outcome(syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
}

static int userfaultfd(char **a) {
    (void)a;
    return outcome(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
}

static int kcmp(char **a) {
    (void)a;
    return outcome(syscall(SYS_kcmp, getpid(), getpid(), KCMP_VM, 0, 0));
}

static int handle(char **a) {
    struct {
        struct file_handle head;
        unsigned char bytes[128];
    } handle = {.head.handle_bytes = sizeof handle.bytes};
    int mount_id, directory = open(".", O_RDONLY | O_DIRECTORY);
    if (name_to_handle_at(AT_FDCWD, a[0], &handle.head, &mount_id, 0))
        return refused();
    return outcome(open_by_handle_at(directory, &handle.head, O_RDONLY));
}

/* A handle of the root of an ext4 file system, which needs no name. */
static int guessed_handle(char **a) {
    struct {
        struct file_handle head;
        uint32_t inode, generation;
    } handle = {.head = {.handle_bytes = 8, .handle_type = 1}, .inode = 2};
    int directory = open(a[0], O_RDONLY | O_DIRECTORY);
    if (directory < 0)
        cannot("open the directory");
    return outcome(open_by_handle_at(directory, &handle.head, O_RDONLY));
}

/* Types a letter into its own controlling terminal. */
static int type(uint64_t request) {
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY), zero = 0, number, slave = 0;
    if (master >= 0) {
        char path[64];
        if (fork())
            return wait(&number) < 0 ? 2 : WEXITSTATUS(number);
        if (setsid() < 0 || ioctl(master, TIOCSPTLCK, &zero) || ioctl(master, TIOCGPTN, &number))
            cannot("make a terminal");
        snprintf(path, sizeof path, "/dev/pts/%d", number);
        slave = open(path, O_RDWR);
        if (slave < 0 || ioctl(slave, TIOCSCTTY, 0))
            cannot("take the terminal");
    }
    return outcome(syscall(SYS_ioctl, slave, request, "x"));
}

static int tiocsti(char **a) { return (void)a, type(TIOCSTI); }
static int tiocsti_wide(char **a) { return (void)a, type(TIOCSTI | 1ULL << 32); }

/* `getpid` of the 32-bit table. */
static int int80(char **a) {
    (void)a;
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(20L) : "memory");
    return result == getpid() ? 0 : 2;
}

/* `getpid` of the x32 table. */
static int x32(char **a) { return (void)a, outcome(syscall(0x40000000L | SYS_getpid)); }

static int kernel_log(char **a) { return (void)a, outcome(klogctl(10, NULL, 0)); }

static int read_clock_state(char **a) {
    (void)a;
    struct timex state = {0};
    return outcome(adjtimex(&state));
}

static int secret_memory(char **a) { return (void)a, outcome(syscall(SYS_memfd_secret, 0)); }

static int watch_files(char **a) {
    (void)a;
    return outcome(syscall(SYS_fanotify_init, 0x200, O_RDONLY));
}

static int local_descriptors(char **a) {
    (void)a;
    char table[16];
    return outcome(syscall(SYS_modify_ldt, 0, table, sizeof table));
}

static int device(char **a) {
    mode_t kind = a[0][0] == 'c' ? S_IFCHR : S_IFBLK;
    return outcome(mknod(a[1], kind | 0666, makedev(1, 3)));
}

static int raise_priority(char **a) {
    return (void)a, outcome(setpriority(PRIO_PROCESS, 0, -5));
}

/* Any system call by number, with no valid argument. */
static int number(char **a) { return outcome(syscall(atol(a[0]), -1, -1, -1, -1, -1, -1)); }

const struct act kernel[] = {
    {"add-key", 0, add_key},
    {"join-keyring", 0, join_keyring},
    {"request-key", 0, request_key},
    {"io-uring", 0, io_uring},
    {"bpf", 0, bpf},
    {"perf", 0, perf},
    {"userfaultfd", 0, userfaultfd},
    {"kcmp", 0, kcmp},
    {"handle", 1, handle},
    {"guessed-handle", 1, guessed_handle},
    {"tiocsti", 0, tiocsti},
    {"tiocsti-wide", 0, tiocsti_wide},
    {"int80", 0, int80},
    {"x32", 0, x32},
    {"kernel-log", 0, kernel_log},
    {"read-clock-state", 0, read_clock_state},
    {"secret-memory", 0, secret_memory},
    {"watch-files", 0, watch_files},
    {"local-descriptors", 0, local_descriptors},
    {"device", 2, device},
    {"raise-priority", 0, raise_priority},
    {"number", 1, number},
    {0},
};
