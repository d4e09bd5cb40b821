#include "probe.h"

#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>

int refused(void) {
    printf("refused %s\n", strerrorname_np(errno));
    return 1;
}

void cannot(const char *what) {
    printf("cannot %s: %s\n", what, strerrorname_np(errno));
    exit(2);
}

int outcome(long result) { return result < 0 ? refused() : 0; }

int can_open(const char *path, int flags) { return outcome(open(path, flags | O_CLOEXEC)); }

static void map(const char *path, unsigned id) {
    FILE *file = fopen(path, "w");
    if (!file || fprintf(file, "0 %u 1", id) < 0 || fclose(file))
        cannot("map ids");
}

static void enter_own_namespaces(void) {
    unsigned uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
        cannot("enter namespaces");
    FILE *deny = fopen("/proc/self/setgroups", "w");
    if (!deny || fputs("deny", deny) < 0 || fclose(deny))
        cannot("deny setgroups");
    map("/proc/self/uid_map", uid);
    map("/proc/self/gid_map", gid);
    if (mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL))
        cannot("make mounts private");
    char *here = getcwd(NULL, 0);
    if (!here || mount("none", here, "tmpfs", 0, NULL) || chdir(here))
        cannot("mount over the working directory");
}

/* With the capabilities over a range of ids, anyone can be anyone in it. */
static void become(unsigned id) {
    if (setgroups(0, NULL) || setresgid(id, id, id) || setresuid(id, id, id))
        cannot("become another user");
    if (prctl(PR_SET_DUMPABLE, 1))
        cannot("own its own entries in /proc");
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count > 2 && !strcmp(arguments[1], "as")) {
        become(strtoul(arguments[2], NULL, 10));
        arguments += 2;
        count -= 2;
    }
    if (count > 1 && !strcmp(arguments[1], "own")) {
        enter_own_namespaces();
        arguments++;
        count--;
    }
    const struct act *tables[] = {files, modes, kernel, mounts, processes, sockets, tells};
    for (size_t table = 0; count > 1 && table < sizeof tables / sizeof *tables; table++)
        for (const struct act *act = tables[table]; act->name; act++)
            if (!strcmp(act->name, arguments[1]) && act->arguments == count - 2)
                return act->run(arguments + 2);
    errno = EINVAL;
    cannot("find that act");
}
