/* Preloaded into a process: its N-th call on a file below a folder fails, or kills it. Linux, glibc.
 *
 * Counted are opens (to read; to write), writes, fsyncs, renames, unlinks and mkdirs of whatever library makes them
 * through libc, Python or not. A write at which the process is killed is torn: half of its bytes are written before.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READ, CREATE, WRITE, FSYNC, RENAME, UNLINK, MKDIR, SAVE }; /* SAVE: a rename of a training state */

static long *calls, wanted;        /* calls counted so far, then the kind of each (shared with the parent); which is hit */
static const long room = 8191;     /* of the kinds */
static int failure, sticky;        /* errno, 0 to kill; whether later calls fail too */
static char root[PATH_MAX];

void fire_arm(long *shared, long at, int error, int lasting, const char *folder) {
    calls = shared, wanted = at, failure = error, sticky = lasting;
    snprintf(root, sizeof root, "%s", folder);
}

static int counted_path(const char *path) {
    if (path[0] == '/' && strncmp(path, root, strlen(root)) != 0) return 0;
    return strstr(path, "__pycache__") == NULL && strstr(path, ".py") == NULL;
}

static int counted_at(int folder, const char *path) {
    char link[64], name[PATH_MAX];
    if (calls == NULL) return 0;
    if (path[0] == '/' || folder == AT_FDCWD) return counted_path(path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t n = readlink(link, name, sizeof name - 1);
    if (n < 0) return 0;
    name[n] = 0;
    return counted_path(name) && strstr(path, ".py") == NULL;
}

static int counted_file(int file) {
    char link[64], name[PATH_MAX];
    if (calls == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, name, sizeof name - 1);
    if (n < 0) return 0;
    name[n] = 0;
    return name[0] == '/' && counted_path(name);
}

/* Whether this call is the one: 0 no, 1 it must fail, 2 the process must die. */
static int hit(int kind) {
    long n = __atomic_add_fetch(calls, 1, __ATOMIC_SEQ_CST);
    if (n <= room) calls[n] = kind;
    if (n != wanted && !(sticky && n > wanted && (kind == CREATE || kind == WRITE || kind == FSYNC || kind == MKDIR))) return 0;
    return failure ? 1 : 2;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define STOP(kind) switch (hit(kind)) { case 1: errno = failure; return -1; case 2: die(); }
#define OPEN_KIND(flags) (((flags) & (O_WRONLY | O_RDWR | O_CREAT)) ? CREATE : READ)
#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        va_list more; va_start(more, flags);                         \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0; va_end(more); \
        NEXT(name);                                                  \
        if (counted_at(AT_FDCWD, path)) STOP(OPEN_KIND(flags))       \
        return next(path, flags, mode);                              \
    }
#define OPENAT(name)                                                 \
    int name(int folder, const char *path, int flags, ...) {         \
        va_list more; va_start(more, flags);                         \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0; va_end(more); \
        NEXT(name);                                                  \
        if (counted_at(folder, path)) STOP(OPEN_KIND(flags))         \
        return next(folder, path, flags, mode);                      \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                  \
    FILE *name(const char *path, const char *mode) {                 \
        NEXT(name);                                                  \
        if (counted_at(AT_FDCWD, path)) switch (hit(mode[0] == 'r' && !strchr(mode, '+') ? READ : CREATE)) { \
            case 1: errno = failure; return NULL; case 2: die(); }   \
        return next(path, mode);                                     \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int file, const void *data, size_t size) {
    NEXT(write);
    if (counted_file(file)) switch (hit(WRITE)) {
        case 1: errno = failure; return -1;
        case 2: if (next(file, data, size / 2) >= -1) die();
    }
    return next(file, data, size);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    NEXT(pwrite);
    if (counted_file(file)) STOP(WRITE)
    return next(file, data, size, at);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    NEXT(pwrite64);
    if (counted_file(file)) STOP(WRITE)
    return next(file, data, size, at);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    NEXT(writev);
    if (counted_file(file)) STOP(WRITE)
    return next(file, parts, count);
}
int fsync(int file) {
    NEXT(fsync);
    if (counted_file(file)) STOP(FSYNC)
    return next(file);
}
int fdatasync(int file) {
    NEXT(fdatasync);
    if (counted_file(file)) STOP(FSYNC)
    return next(file);
}
int rename(const char *from, const char *to) {
    NEXT(rename);
    if (counted_at(AT_FDCWD, to)) STOP(strstr(to, ".ckpt") ? SAVE : RENAME)
    return next(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    NEXT(renameat);
    if (counted_at(b, to)) STOP(strstr(to, ".ckpt") ? SAVE : RENAME)
    return next(a, from, b, to);
}
int unlink(const char *path) {
    NEXT(unlink);
    if (counted_at(AT_FDCWD, path)) STOP(UNLINK)
    return next(path);
}
int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat);
    if (counted_at(folder, path)) STOP(UNLINK)
    return next(folder, path, flags);
}
int rmdir(const char *path) {
    NEXT(rmdir);
    if (counted_at(AT_FDCWD, path)) STOP(UNLINK)
    return next(path);
}
int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    if (counted_at(AT_FDCWD, path)) STOP(MKDIR)
    return next(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    NEXT(mkdirat);
    if (counted_at(folder, path)) STOP(MKDIR)
    return next(folder, path, mode);
}
