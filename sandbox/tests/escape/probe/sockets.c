/* Ways to talk to the host, and to hand something out. */
#include "probe.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>

static int tcp(char **a) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(a[1]))};
    inet_pton(AF_INET, a[0], &to.sin_addr);
    return outcome(connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to));
}

static int tcp6(char **a) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(a[1]))};
    inet_pton(AF_INET6, a[0], &to.sin6_addr);
    return outcome(connect(socket(AF_INET6, SOCK_STREAM, 0), (void *)&to, sizeof to));
}

/* Finds a route; nothing is sent. */
static int route(char **a) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    inet_pton(AF_INET, a[0], &to.sin_addr);
    return outcome(connect(socket(AF_INET, SOCK_DGRAM, 0), (void *)&to, sizeof to));
}

/* A leading `@` stands for the NUL of an abstract name. */
static socklen_t local(const char *name, struct sockaddr_un *address) {
    address->sun_family = AF_UNIX;
    strncpy(address->sun_path, name, sizeof address->sun_path - 1);
    if (name[0] != '@')
        return sizeof *address;
    address->sun_path[0] = 0;
    return offsetof(struct sockaddr_un, sun_path) + strlen(name);
}

static int connected(const char *name) {
    struct sockaddr_un address = {0};
    socklen_t length = local(name, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (void *)&address, length) ? -1 : fd;
}

static int connect_(char **a) { return outcome(connected(a[0])); }

/* Sends an open file over a local socket. */
static int send_descriptor(char **a) {
    int to = connected(a[0]);
    if (to < 0)
        return refused();
    int fd = open(a[1], O_RDWR | O_CREAT, 0644);
    char letter = 'x', space[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec data = {&letter, 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = space,
                             .msg_controllen = sizeof space};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    return outcome(sendmsg(to, &message, 0));
}

/* Listens on a local socket, says so, and waits for one caller. */
static int listen_(char **a) {
    struct sockaddr_un address = {0};
    socklen_t length = local(a[0], &address);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fd, (void *)&address, length) || listen(fd, 1))
        return refused();
    printf("listening\n");
    return outcome(accept(fd, NULL, NULL));
}

static int socket_(char **a) { return outcome(socket(atoi(a[0]), atoi(a[1]), atoi(a[2]))); }

static int wide_socket(char **a) {
    return outcome(syscall(SYS_socket, atoi(a[0]) | 1L << 32, atol(a[1]), atol(a[2])));
}

static int pair(char **a) {
    int pair[2];
    return outcome(socketpair(atoi(a[0]), SOCK_SEQPACKET, 0, pair));
}

static int make_segment(char **a) {
    return outcome(shmget(atoi(a[0]), 4096, IPC_CREAT | IPC_EXCL | 0600));
}

static int use_segment(char **a) { return outcome(shmget(atoi(a[0]), 0, 0)); }

static int remove_segment(char **a) {
    return outcome(shmctl(shmget(atoi(a[0]), 0, 0), IPC_RMID, NULL));
}

const struct act sockets[] = {
    {"tcp", 2, tcp},
    {"tcp6", 2, tcp6},
    {"route", 1, route},
    {"connect", 1, connect_},
    {"send-descriptor", 2, send_descriptor},
    {"listen", 1, listen_},
    {"socket", 3, socket_},
    {"wide-socket", 3, wide_socket},
    {"socketpair", 1, pair},
    {"make-segment", 1, make_segment},
    {"use-segment", 1, use_segment},
    {"remove-segment", 1, remove_segment},
    {0},
};
