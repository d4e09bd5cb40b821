/* Every system call that can give a file a mode. */
#include "probe.h"

#include <linux/openat2.h>

enum { FCHMODAT2 = 452 };

static const char *const made = "made";

static int plain_file(void) {
    int fd = open(made, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        cannot("make a plain file");
    return fd;
}

/* `extra` is or-ed into the register that holds the mode; the kernel takes its low half. */
static long call(const char *name, mode_t mode, uint64_t extra) {
    uint64_t wide = mode | extra;
    if (!strcmp(name, "chmod"))
        return plain_file(), syscall(SYS_chmod, made, wide);
    if (!strcmp(name, "fchmod"))
        return syscall(SYS_fchmod, plain_file(), wide);
    if (!strcmp(name, "fchmodat"))
        return plain_file(), syscall(SYS_fchmodat, AT_FDCWD, made, wide);
    if (!strcmp(name, "fchmodat2"))
        return plain_file(), syscall(FCHMODAT2, AT_FDCWD, made, wide, 0);
    if (!strcmp(name, "open"))
        return syscall(SYS_open, made, O_CREAT | O_WRONLY, wide);
    if (!strcmp(name, "openat"))
        return syscall(SYS_openat, AT_FDCWD, made, O_CREAT | O_WRONLY, wide);
    if (!strcmp(name, "openat2")) {
        struct open_how how = {.flags = O_CREAT | O_WRONLY, .mode = mode};
        return syscall(SYS_openat2, AT_FDCWD, made, &how, sizeof how);
    }
    if (!strcmp(name, "creat"))
        return syscall(SYS_creat, made, wide);
    if (!strcmp(name, "mknod"))
        return syscall(SYS_mknod, made, S_IFREG | wide, 0);
    if (!strcmp(name, "mknodat"))
        return syscall(SYS_mknodat, AT_FDCWD, made, S_IFREG | wide, 0);
    if (!strcmp(name, "mkdir"))
        return syscall(SYS_mkdir, made, wide);
    if (!strcmp(name, "mkdirat"))
        return syscall(SYS_mkdirat, AT_FDCWD, made, wide);
    if (!strcmp(name, "tmpfile")) {
        int fd = syscall(SYS_openat, AT_FDCWD, ".", O_TMPFILE | O_WRONLY, wide);
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        return fd < 0 ? fd : linkat(AT_FDCWD, path, AT_FDCWD, made, AT_SYMLINK_FOLLOW);
    }
    errno = EINVAL;
    cannot("find that call");
}

static int with(char **a, uint64_t extra) {
    mode_t mode = strtoul(a[1], NULL, 8);
    if (call(a[0], mode, extra) < 0)
        return refused();
    struct stat found;
    if (stat(made, &found))
        cannot("examine what was made");
    /* `mkdir` ignores these bits: for it, being called is the act. */
    if (S_ISREG(found.st_mode) && (found.st_mode & 07777) != mode)
        cannot("find the mode that was asked for");
    return 0;
}

static int narrow(char **a) { return with(a, 0); }
static int wide(char **a) { return with(a, 1ULL << 32); }

const struct act modes[] = {{"mode", 2, narrow}, {"mode-wide", 2, wide}, {0}};
