/* Mounts, roots and namespaces. */
#include "probe.h"

#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>

/* <sys/mount.h> and <linux/mount.h> cannot both be included. */
extern int mount(const char *, const char *, const char *, unsigned long, const void *);
extern int umount2(const char *, int);

enum { DETACH = 2 };

static int mount_(char **a) { return outcome(mount("none", a[0], "tmpfs", 0, NULL)); }
static int bind_(char **a) { return outcome(mount(a[0], a[1], NULL, MS_BIND, NULL)); }
static int unmount(char **a) { return outcome(umount2(a[0], DETACH)); }

static int remount(char **a) {
    return outcome(mount(NULL, a[0], NULL, MS_REMOUNT | MS_BIND, NULL));
}

static int open_tree_(char **a) {
    return outcome(syscall(SYS_open_tree, AT_FDCWD, a[0], OPEN_TREE_CLONE));
}

static int move_mount_(char **a) {
    int tree = syscall(SYS_open_tree, AT_FDCWD, a[0], OPEN_TREE_CLONE);
    return outcome(syscall(SYS_move_mount, tree, "", AT_FDCWD, a[0], MOVE_MOUNT_F_EMPTY_PATH));
}

static int fsopen_(char **a) { return (void)a, outcome(syscall(SYS_fsopen, "tmpfs", 0)); }

static int fspick_(char **a) { return outcome(syscall(SYS_fspick, AT_FDCWD, a[0], 0)); }

static int mount_setattr_(char **a) {
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID};
    return outcome(
        syscall(SYS_mount_setattr, AT_FDCWD, a[0], 0, &attributes, sizeof attributes));
}

static int change_root(char **a) { return outcome(chroot(a[0])); }

static int pivot(char **a) {
    (void)a;
    return outcome(syscall(SYS_pivot_root, ".", "."));
}

static int unshare_(char **a) { return outcome(syscall(SYS_unshare, strtoul(a[0], NULL, 16))); }

static int ended(long pid) {
    if (pid == 0)
        _exit(0);
    return outcome(pid);
}

static int clone_(char **a) {
    return ended(syscall(SYS_clone, strtoul(a[0], NULL, 16) | SIGCHLD, 0, 0, 0, 0));
}

static int clone3_(char **a) {
    struct clone_args arguments = {.flags = strtoul(a[0], NULL, 16), .exit_signal = SIGCHLD};
    return ended(syscall(SYS_clone3, &arguments, sizeof arguments));
}

/* Enters the namespace that it is in. */
static int setns_(char **a) {
    int fd = open(a[0], O_RDONLY);
    if (fd < 0)
        cannot("open the namespace");
    return outcome(setns(fd, 0));
}

const struct act mounts[] = {
    {"mount", 1, mount_},
    {"bind", 2, bind_},
    {"unmount", 1, unmount},
    {"remount", 1, remount},
    {"open-tree", 1, open_tree_},
    {"move-mount", 1, move_mount_},
    {"fsopen", 0, fsopen_},
    {"fspick", 1, fspick_},
    {"mount-setattr", 1, mount_setattr_},
    {"chroot", 1, change_root},
    {"pivot-root", 0, pivot},
    {"unshare", 1, unshare_},
    {"clone", 1, clone_},
    {"clone3", 1, clone3_},
    {"setns", 1, setns_},
    {0},
};
