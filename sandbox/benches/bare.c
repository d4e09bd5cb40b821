/* The yardstick of the start-up benchmark: one run in all namespaces, with COUNT
 * read-only directories and the same masks, devices and limits as the crate has, and a
 * filter of like length, written as directly as C can. Exits with the program's
 * status. Usage: bare COUNT DIRECTORY PROGRAM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OK(call) do { if ((call) < 0) { perror(#call); _exit(99); } } while (0)

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    OK(fd);
    OK(write(fd, text, strlen(text)));
    close(fd);
}

static int capture(const char *path, unsigned long long attributes) {
    int fd = syscall(SYS_open_tree, AT_FDCWD, path, 1 | O_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);
    OK(fd);
    struct mount_attr attr = { .attr_set = attributes };
    OK(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr));
    return fd;
}

static int fresh(const char *kind, const char *mode) {
    int context = syscall(SYS_fsopen, kind, 1);
    OK(context);
    if (mode) OK(syscall(SYS_fsconfig, context, 1, "mode", mode, 0));
    OK(syscall(SYS_fsconfig, context, 6, NULL, NULL, 0));
    int fd = syscall(SYS_fsmount, context, 1, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    OK(fd);
    close(context);
    return fd;
}

static void attach(int fd, int root, const char *path) {
    OK(syscall(SYS_move_mount, fd, "", root, path, 4));
    close(fd);
}

static void filter(int instructions) {
    struct sock_filter code[instructions];
    for (int i = 0; i < instructions; i++)
        code[i] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = { .len = instructions, .filter = code };
    OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static const char *const MASKS[] = { "acpi", "bus", "fs", "irq", "kallsyms", "kcore", "key-users",
    "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "timer_list", "vmallocinfo",
    "cmdline", "config.gz", "diskstats", "driver", "interrupts", "partitions", "pressure", "swaps",
    "version", "vmstat", "cpuinfo", "loadavg", "meminfo", "stat", "uptime",
    "sys/kernel/random/boot_id" };
static const char *const DEVICES[] = { "full", "null", "random", "urandom", "zero" };

static void inside(int count, const char *directory, char **program) {
    char path[256];
    int devices[5], inputs[count];
    OK(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL));
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "/dev/%s", DEVICES[i]);
        devices[i] = capture(path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY);
    }
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%d", directory, i);
        inputs[i] = capture(path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY);
    }
    int root = fresh("tmpfs", "0755");
    OK(syscall(SYS_move_mount, root, "", AT_FDCWD, "/", 4));
    OK(fchdir(root));
    OK(mkdirat(root, "dev", 0755));
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "dev/%s", DEVICES[i]);
        close(openat(root, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        attach(devices[i], root, path);
    }
    OK(mkdirat(root, "in", 0755));
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "in/%d", i);
        OK(mkdirat(root, path, 0755));
        attach(inputs[i], root, path);
    }
    OK(mkdirat(root, "tmp", 0755));
    attach(fresh("tmpfs", "1777"), root, "tmp");
    OK(mkdirat(root, "dev/shm", 0755));
    attach(fresh("tmpfs", "1777"), root, "dev/shm");
    OK(mkdirat(root, "proc", 0755));
    int below = openat(root, "proc", O_PATH | O_CLOEXEC);
    close(openat(below, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0444));
    OK(mkdirat(below, "directory", 0555));
    attach(fresh("proc", NULL), root, "proc");
    for (unsigned i = 0; i < sizeof MASKS / sizeof *MASKS; i++) {
        struct stat status;
        snprintf(path, sizeof path, "proc/%s", MASKS[i]);
        if (fstatat(root, path, &status, AT_SYMLINK_NOFOLLOW) < 0) continue;
        int fd = syscall(SYS_open_tree, below, S_ISDIR(status.st_mode) ? "directory" : "file", 1 | O_CLOEXEC);
        struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID };
        OK(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof attr));
        attach(fd, root, path);
    }
    OK(syscall(SYS_pivot_root, ".", "."));
    OK(umount2(".", MNT_DETACH));
    OK(chdir("/"));
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
    OK(syscall(SYS_mount_setattr, root, "", AT_EMPTY_PATH, &attr, sizeof attr));
    int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
    OK(ioctl(socket_fd, SIOCSIFFLAGS, &request));
    OK(sethostname("localhost", 9));
    for (int i = 0; i < 41; i++) OK(prctl(PR_CAPBSET_DROP, i, 0, 0, 0));
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    pid_t builder = fork();
    OK(builder);
    if (builder == 0) {
        OK(setsid());
        struct rlimit none = { 0, 0 };
        OK(setrlimit(RLIMIT_CORE, &none));
        for (int i = 1; i < 65; i++) signal(i, SIG_DFL);
        filter(270);
        execv(program[0], program);
        _exit(98);
    }
    int status;
    OK(waitpid(builder, &status, 0));
    _exit(WEXITSTATUS(status));
}

int main(int argc, char **argv) {
    if (argc < 4) return 97;
    char map[64];
    int status;
    pid_t monitor = fork();
    OK(monitor);
    if (monitor == 0) {
        unsigned uid = geteuid(), gid = getegid();
        OK(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
                   CLONE_NEWUTS | CLONE_NEWCGROUP | 0x80));
        put("/proc/self/setgroups", "deny");
        snprintf(map, sizeof map, "1000 %u 1", uid);
        put("/proc/self/uid_map", map);
        snprintf(map, sizeof map, "100 %u 1", gid);
        put("/proc/self/gid_map", map);
        pid_t init = fork();
        OK(init);
        if (init == 0) inside(atoi(argv[1]), argv[2], argv + 3);
        OK(waitpid(init, &status, 0));
        _exit(WEXITSTATUS(status));
    }
    OK(waitpid(monitor, &status, 0));
    return WEXITSTATUS(status);
}
