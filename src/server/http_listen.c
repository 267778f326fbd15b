/* http_listen.c - bind before anybody can connect, and to both loopbacks.
 *
 * "localhost" is ::1 first on some machines and 127.0.0.1 on others, so by
 * default both are bound, to one port. A family that a machine does not have is
 * left out; `where` tells which are there. */
#include "http_listen.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 512, PORT_TRIES = 32 };

static bool set_flags(int fd)
{
    return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
}

static void close_all(Listeners *l)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->fd[i] >= 0)
            close(l->fd[i]);
    l->n = 0;
}

/* ---- TCP ---------------------------------------------------------------------- */

static int port_of(const struct sockaddr_storage *a)
{
    return ntohs(a->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)a)->sin6_port
                                          : ((const struct sockaddr_in *)a)->sin_port);
}

static void set_port(struct sockaddr_storage *a, int port)
{
    if (a->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)a)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)a)->sin_port = htons((uint16_t)port);
}

static bool is_loopback(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
}

static void describe(Listeners *l, const struct sockaddr_storage *a, socklen_t n)
{
    char host[64], url[96];
    if (getnameinfo((const struct sockaddr *)a, n, host, sizeof host, NULL, 0, NI_NUMERICHOST))
        return;
    snprintf(url, sizeof url, a->ss_family == AF_INET6 ? "%shttp://[%s]:%d" : "%shttp://%s:%d",
             l->where[0] ? ", " : "", host, l->port);
    if (strlen(l->where) + strlen(url) < sizeof l->where)
        strcat(l->where, url);
}

/* A bound and listening socket, or -1 with errno set. */
static int bind_socket(const struct sockaddr_storage *a, socklen_t n)
{
    int fd = socket(a->ss_family, SOCK_STREAM, 0), on = 1;
    if (fd < 0)
        return -1;
    /* The address of all IPv6 interfaces stands for those of IPv4 too. */
    bool both = a->ss_family == AF_INET6 &&
                IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)a)->sin6_addr);
    int only = !both;
    bool ok = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              (a->ss_family != AF_INET6 ||
               setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only) == 0) &&
              set_flags(fd) && bind(fd, (const struct sockaddr *)a, n) == 0 &&
              listen(fd, BACKLOG) == 0;
    if (ok)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

enum Bound { BOUND, ABSENT, TAKEN, FAILED };

static enum Bound bind_one(Listeners *l, const struct addrinfo *ai, ds4_err *err)
{
    struct sockaddr_storage a = { 0 };
    socklen_t n = (socklen_t)ai->ai_addrlen;
    if (l->n == MAX_LISTENERS || n > sizeof a)
        return ABSENT;
    memcpy(&a, ai->ai_addr, n);
    set_port(&a, l->port);
    int fd = bind_socket(&a, n);
    if (fd < 0) {
        bool absent = errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL || errno == EPROTONOSUPPORT;
        bool taken = errno == EADDRINUSE;
        fail(err, DS4_EIO, "port %d of %s: %s", l->port, a.ss_family == AF_INET6 ? "IPv6" : "IPv4",
             strerror(errno));
        return absent ? ABSENT : taken ? TAKEN : FAILED;
    }
    l->fd[l->n++] = fd;
    if (getsockname(fd, (struct sockaddr *)&a, &n) == 0)
        l->port = port_of(&a);
    l->open_to_others = l->open_to_others || !is_loopback(&a);
    describe(l, &a, n);
    return BOUND;
}

static enum Bound bind_name(Listeners *l, const char *name, ds4_err *err)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *all;
    int why = getaddrinfo(name, NULL, &hints, &all);
    if (why) {
        fail(err, DS4_EINVAL, "address %s: %s", name, gai_strerror(why));
        return FAILED;
    }
    enum Bound bound = ABSENT;
    for (const struct addrinfo *ai = all; ai && (bound == ABSENT || bound == BOUND);
         ai = ai->ai_next) {
        enum Bound this =
            ai->ai_family == AF_INET || ai->ai_family == AF_INET6 ? bind_one(l, ai, err) : ABSENT;
        bound = this == ABSENT ? bound : this;
    }
    freeaddrinfo(all);
    return bound;
}

static enum Bound bind_host(Listeners *l, const char *host, ds4_err *err)
{
    static const char *const loopback[] = { "127.0.0.1", "::1" };
    if (host && strcmp(host, "localhost") != 0)
        return bind_name(l, host, err);
    enum Bound bound = ABSENT;
    for (size_t i = 0; i < COUNT(loopback) && (bound == ABSENT || bound == BOUND); i++) {
        enum Bound this = bind_name(l, loopback[i], err);
        bound = this == ABSENT ? bound : this;
    }
    return bound;
}

/* A free port of the first address may be taken at the second: then another. */
static bool open_tcp(Listeners *l, const HttpOptions *opt, ds4_err *err)
{
    if (opt->port < 0 || opt->port > 65535)
        return fail(err, DS4_EINVAL, "port %d is not in 0..65535", opt->port);
    enum Bound bound = TAKEN;
    for (int i = 0; i < (opt->port ? 1 : PORT_TRIES) && bound == TAKEN; i++) {
        close_all(l);
        *l = (Listeners){ .port = opt->port };
        bound = bind_host(l, opt->host, err);
    }
    if (bound != BOUND)
        return false;
    if (l->open_to_others && opt->n_keys == 0 && !opt->insecure)
        return fail(err, DS4_EINVAL,
                    "%s can be reached by other machines: give an API key, or allow it without one",
                    l->where);
    return true;
}

/* ---- a Unix socket --------------------------------------------------------------- */

/* What a server that was killed has left is removed; anything else is not. */
static bool remove_stale(const struct sockaddr_un *a, ds4_err *err)
{
    struct stat st;
    if (lstat(a->sun_path, &st) != 0)
        return errno == ENOENT || fail(err, DS4_EIO, "%s: %s", a->sun_path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return fail(err, DS4_EINVAL, "%s exists and is no socket", a->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return fail(err, DS4_EIO, "%s: %s", a->sun_path, strerror(errno));
    bool refused = connect(fd, (const struct sockaddr *)a, sizeof *a) != 0 && errno == ECONNREFUSED;
    close(fd);
    if (!refused)
        return fail(err, DS4_EIO, "%s is in use by another server", a->sun_path);
    if (unlink(a->sun_path) != 0)
        return fail(err, DS4_EIO, "%s: %s", a->sun_path, strerror(errno));
    return true;
}

/* Between bind and listen nobody can connect, so its mode is set in time. */
static bool bind_unix(int fd, const struct sockaddr_un *a)
{
    return set_flags(fd) && bind(fd, (const struct sockaddr *)a, sizeof *a) == 0 &&
           chmod(a->sun_path, S_IRUSR | S_IWUSR) == 0 && listen(fd, BACKLOG) == 0;
}

static bool open_unix(Listeners *l, const char *path, ds4_err *err)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct stat st;
    if (!*path || strlen(path) >= sizeof a.sun_path)
        return fail(err, DS4_EINVAL, "the path of a socket has 1 to %zu bytes, this one %zu: %s",
                    sizeof a.sun_path - 1, strlen(path), path);
    memcpy(a.sun_path, path, strlen(path));
    if (!remove_stale(&a, err))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || !bind_unix(fd, &a) || lstat(path, &st) != 0) {
        fail(err, DS4_EIO, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    l->fd[l->n++] = fd;
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    snprintf(l->where, sizeof l->where, "unix:%s", path);
    l->unix_path = strdup(path);
    return l->unix_path || fail(err, DS4_ENOMEM, "no memory for a path");
}

bool listen_open(Listeners *l, const HttpOptions *opt, ds4_err *err)
{
    bool ok = opt->unix_path ? open_unix(l, opt->unix_path, err) : open_tcp(l, opt, err);
    if (!ok)
        listen_close(l);
    return ok;
}

void listen_close(Listeners *l)
{
    struct stat st;
    if (l->unix_path && lstat(l->unix_path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
        unlink(l->unix_path);
    free(l->unix_path);
    l->unix_path = NULL;
    close_all(l);
}
