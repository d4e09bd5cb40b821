/* Acts that a sandbox must refuse. One program, so that it is compiled once.
 *
 *     probe [own] ACT [ARGUMENT...]
 *
 * exit status   last line      meaning
 * 0                            the act worked
 * 1             refused NAME   the kernel refused it with this error
 * 2             cannot WHAT    it could not even be tried
 *
 * `own` first enters a user and a mount namespace of its own, and mounts an empty file
 * system over its working directory: there, acts that need root work without harm.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

struct act {
    const char *name;
    int arguments;
    int (*run)(char **arguments);
};

extern const struct act files[], modes[], kernel[], mounts[], processes[], sockets[], tells[];

/* Returns the exit status for the result of a system call. */
int outcome(long result);
/* Prints the current error as the refusal. */
int refused(void);
/* Ends the process: what the act needs is not there. */
void cannot(const char *what) __attribute__((noreturn));
/* Opens a path, or returns the refusal. */
int can_open(const char *path, int flags);
