/* What tells one machine from another. Each act prints one line. */
#include "probe.h"

#include <sched.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>

static int host_name(char **a) {
    (void)a;
    struct utsname names;
    return printf("%s\n", uname(&names) ? "" : names.nodename), 0;
}

static int kernel_release(char **a) {
    (void)a;
    struct utsname names;
    return printf("%s\n", uname(&names) ? "" : names.release), 0;
}

static int cores(char **a) {
    (void)a;
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 2 : (printf("%d\n", CPU_COUNT(&set)), 0);
}

static int memory(char **a) {
    (void)a;
    struct sysinfo info;
    return sysinfo(&info) ? 2 : (printf("%lu\n", info.totalram * info.mem_unit), 0);
}

static int clock_seconds(clockid_t clock) {
    struct timespec now;
    return clock_gettime(clock, &now) ? 2 : (printf("%ld\n", (long)now.tv_sec), 0);
}

static int uptime(char **a) { return (void)a, clock_seconds(CLOCK_BOOTTIME); }
static int monotonic(char **a) { return (void)a, clock_seconds(CLOCK_MONOTONIC); }

static int uptime_of_sysinfo(char **a) {
    (void)a;
    struct sysinfo info;
    return sysinfo(&info) ? 2 : (printf("%ld\n", info.uptime), 0);
}

static int space(char **a) {
    struct statvfs found;
    if (statvfs(a[0], &found))
        return refused();
    return printf("%llu\n", (unsigned long long)found.f_blocks * found.f_frsize), 0;
}

static int user(char **a) { return (void)a, printf("%u:%u\n", geteuid(), getegid()), 0; }

/* The lines of a file, up to 64 KiB. */
static int content(char **a) {
    static char text[1 << 16];
    int fd = open(a[0], O_RDONLY);
    if (fd < 0)
        return refused();
    for (ssize_t got; (got = read(fd, text, sizeof text)) > 0;)
        fwrite(text, 1, got, stdout);
    return 0;
}

/* Writes a log without end. */
static int chatter(char **a) {
    (void)a;
    while (puts("and so on and so on and so on") >= 0)
        ;
    return 0;
}

/* Makes a file that is long and empty. */
static int sparse(char **a) {
    signal(SIGXFSZ, SIG_IGN);
    int fd = open(a[0], O_WRONLY | O_CREAT, 0644);
    return fd < 0 ? 2 : outcome(ftruncate(fd, atoll(a[1]) << 30));
}

/* Fills a file, at most as many MiB as told. */
static int fill(char **a) {
    static char block[1 << 20];
    signal(SIGXFSZ, SIG_IGN);
    int fd = open(a[0], O_WRONLY | O_CREAT, 0644);
    for (int count = atoi(a[1]); count > 0; count--)
        if (write(fd, block, sizeof block) < 0)
            return refused();
    return 0;
}

const struct act tells[] = {
    {"host-name", 0, host_name},
    {"kernel-release", 0, kernel_release},
    {"cores", 0, cores},
    {"memory", 0, memory},
    {"uptime", 0, uptime},
    {"monotonic", 0, monotonic},
    {"uptime-of-sysinfo", 0, uptime_of_sysinfo},
    {"space", 1, space},
    {"user", 0, user},
    {"content", 1, content},
    {"chatter", 0, chatter},
    {"sparse", 2, sparse},
    {"fill", 2, fill},
    {0},
};
