/* What lies on the host, and what was given read-only. */
#include "probe.h"

#include <dirent.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/xattr.h>

static int read_(char **a) { return can_open(a[0], O_RDONLY); }
static int write_(char **a) { return can_open(a[0], O_WRONLY); }
static int create(char **a) { return outcome(open(a[0], O_WRONLY | O_CREAT | O_EXCL, 0644)); }
static int list(char **a) { return opendir(a[0]) ? 0 : refused(); }
static int make_directory(char **a) { return outcome(mkdir(a[0], 0755)); }
static int remove_(char **a) { return outcome(unlink(a[0])); }
static int rename_(char **a) { return outcome(rename(a[0], a[1])); }
static int exchange(char **a) {
    return outcome(renameat2(AT_FDCWD, a[0], AT_FDCWD, a[1], RENAME_EXCHANGE));
}
static int shorten(char **a) { return outcome(truncate(a[0], 0)); }
static int make_executable(char **a) { return outcome(chmod(a[0], 0755)); }
/* Changes the mode to what it is: where that is allowed, no harm is done. */
static int keep_mode(char **a) {
    struct stat found;
    if (stat(a[0], &found))
        cannot("examine");
    return outcome(chmod(a[0], found.st_mode & 0777));
}

static int take(char **a) { return outcome(chown(a[0], geteuid(), getegid())); }
static int touch(char **a) { return outcome(utimensat(AT_FDCWD, a[0], NULL, 0)); }
static int hard_link(char **a) { return outcome(link(a[0], a[1])); }
static int link_followed(char **a) {
    return outcome(linkat(AT_FDCWD, a[0], AT_FDCWD, a[1], AT_SYMLINK_FOLLOW));
}

static int open_path(char **a) { return can_open(a[0], O_PATH); }
static int read_link(char **a) {
    char target[4096];
    return outcome(readlink(a[0], target, sizeof target));
}

/* Turns a read-only descriptor into one for writing. */
static int reopen(char **a) {
    int fd = open(a[0], O_RDONLY);
    if (fd < 0)
        cannot("open for reading");
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return can_open(path, O_WRONLY);
}

/* Acts on what a descriptor that came with the process names. */
static const char *named(const char *number) {
    static char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%s", number);
    return path;
}

static int reopen_number(char **a) { return can_open(named(a[0]), O_WRONLY); }
static int expose_number(char **a) { return outcome(chmod(named(a[0]), 0777)); }

/* Writes through a shared mapping of a file that is open for reading. */
static int map_for_writing(char **a) {
    int fd = open(a[0], O_RDWR);
    if (fd < 0)
        return refused();
    void *at = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? refused() : 0;
}

/* Climbs far above `/` by descriptor, then goes down to the path. */
static int climb(char **a) {
    int fd = open("/", O_PATH | O_DIRECTORY);
    for (int step = 0; step < 64 && fd >= 0; step++)
        fd = openat(fd, "..", O_PATH | O_DIRECTORY);
    if (fd < 0 || fchdir(fd))
        cannot("climb");
    return can_open(a[0] + 1, O_RDONLY);
}

/* Opens a name beneath whatever directory some descriptor below 64 holds. */
static int through_descriptors(char **a) {
    for (int fd = 0; fd < 64; fd++)
        if (openat(fd, a[0], O_RDONLY) >= 0)
            return 0;
    errno = EBADF;
    return refused();
}

/* Reads the name beneath `..` of where the process started. */
static int beside_start(char **a) { return can_open(a[0], O_RDONLY); }

static int set_attribute(char **a) { return outcome(setxattr(a[0], a[1], "x", 1, 0)); }

/* Gives every other user the right to write. */
static int set_acl(char **a) {
    static const uint16_t acl[] = {2, 0, 1, 7, 0xffff, 0xffff, 4, 5, 0xffff, 0xffff,
                                   32, 7, 0xffff, 0xffff};
    return outcome(setxattr(a[0], "system.posix_acl_access", acl, sizeof acl, 0));
}

/* `setxattrat` of Linux 6.13, which older headers do not name. */
static int set_attribute_at(char **a) {
    struct {
        uint64_t value;
        uint32_t size, flags;
    } attribute = {(uint64_t)"x", 1, 0};
    return outcome(syscall(463, AT_FDCWD, a[0], 0, "user.x", &attribute, sizeof attribute));
}

static int make_immutable(char **a) {
    int fd = open(a[0], O_RDONLY), flags = 0;
    if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags))
        cannot("read flags");
    int with = flags | FS_IMMUTABLE_FL;
    if (ioctl(fd, FS_IOC_SETFLAGS, &with))
        return refused();
    return outcome(ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

const struct act files[] = {
    {"read", 1, read_},
    {"write", 1, write_},
    {"create", 1, create},
    {"list", 1, list},
    {"mkdir", 1, make_directory},
    {"remove", 1, remove_},
    {"rename", 2, rename_},
    {"exchange", 2, exchange},
    {"shorten", 1, shorten},
    {"make-executable", 1, make_executable},
    {"keep-mode", 1, keep_mode},
    {"take", 1, take},
    {"touch", 1, touch},
    {"hard-link", 2, hard_link},
    {"link-followed", 2, link_followed},
    {"open-path", 1, open_path},
    {"read-link", 1, read_link},
    {"reopen", 1, reopen},
    {"reopen-number", 1, reopen_number},
    {"expose-number", 1, expose_number},
    {"map-for-writing", 1, map_for_writing},
    {"climb", 1, climb},
    {"through-descriptors", 1, through_descriptors},
    {"beside-start", 1, beside_start},
    {"set-attribute", 2, set_attribute},
    {"set-attribute-at", 1, set_attribute_at},
    {"set-acl", 1, set_acl},
    {"make-immutable", 1, make_immutable},
    {0},
};
