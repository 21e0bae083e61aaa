/* A disk and a clock that misbehave, for one process: LD_PRELOAD this.
 *
 * SHIM_PREFIX   only files whose path begins so are touched.
 * SHIM_CONTROL  a file of int64s, mapped; whoever steers the test writes there while the process runs (bench/stress/shim.py).
 * SHIM_LOG      where every change to those files is recorded, in the order in which it happened; unset: nowhere.
 *
 * A record is: kind (1), file number (4), offset (8), length (4), then that many bytes. Kinds: N a name for a file number, C the
 * file was created, W written, T truncated to offset, S synced, M a folder was made, D a folder was synced, U unlinked, R renamed (data:
 * the new name).
 * Syncs are recorded once they have succeeded: what stands before an S in the log is on the disk, whatever happens next.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CLOCK_NS, FAULT_ERRNO, FAULT_AFTER, FAULT_KINDS, SYNC_DELAY_US, CHANGES, FAULTS, FIELDS };
enum { WRITES = 1, SYNCS = 2, OPENS = 4 };
enum { FILES = 65536 };

static volatile int64_t *control;
static char prefix[4096];
static size_t prefix_length;
static int log_fd = -1;
static int32_t number_of[FILES]; /* by descriptor: the file's number, 0 none */
static int32_t *last_number; /* the processes of a relay count together, or one name would stand for files of two */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

__attribute__((constructor)) static void begin(void) {
    const char *place = getenv("SHIM_CONTROL");
    if (place) {
        int fd = syscall(SYS_openat, AT_FDCWD, place, O_RDWR | O_CLOEXEC, 0);
        if (fd >= 0) {
            void *seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (seen != MAP_FAILED) control = seen;
            syscall(SYS_close, fd);
        }
    }
    last_number = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    place = getenv("SHIM_PREFIX");
    if (place && last_number != MAP_FAILED) {
        snprintf(prefix, sizeof prefix, "%s", place);
        prefix_length = strlen(prefix);
    }
    place = getenv("SHIM_LOG");
    if (place) log_fd = syscall(SYS_openat, AT_FDCWD, place, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(char kind, int32_t number, int64_t offset, const void *data, uint32_t length) {
    if (log_fd < 0) return;
    char head[17];
    head[0] = kind;
    memcpy(head + 1, &number, 4);
    memcpy(head + 5, &offset, 8);
    memcpy(head + 13, &length, 4);
    /* One write each: a reader who has seen the file's size has seen whole records up to there. */
    char *whole = malloc(sizeof head + length);
    memcpy(whole, head, sizeof head);
    if (length) memcpy(whole + sizeof head, data, length);
    ssize_t put = syscall(SYS_write, log_fd, whole, sizeof head + length);
    (void)put;
    free(whole);
}

static int32_t number(int fd) { return fd >= 0 && fd < FILES ? number_of[fd] : 0; }

/* True where this change must fail; errno is set. */
static int faulty(int kind) {
    if (!control) return 0;
    __atomic_add_fetch(&control[CHANGES], 1, __ATOMIC_SEQ_CST);
    if (!control[FAULT_ERRNO] || !(control[FAULT_KINDS] & kind)) return 0;
    if (__atomic_sub_fetch(&control[FAULT_AFTER], 1, __ATOMIC_SEQ_CST) >= 0) return 0;
    control[FAULT_AFTER] = 0;
    __atomic_add_fetch(&control[FAULTS], 1, __ATOMIC_SEQ_CST);
    errno = (int)control[FAULT_ERRNO];
    return 1;
}

static int matches(const char *path, char *absolute, size_t size) {
    if (!prefix_length) return 0;
    if (path[0] == '/') snprintf(absolute, size, "%s", path);
    else {
        char here[2048];
        if (!getcwd(here, sizeof here)) return 0;
        snprintf(absolute, size, "%s/%s", here, path);
    }
    return strncmp(absolute, prefix, prefix_length) == 0;
}

static int opened(const char *path, int flags, mode_t mode) {
    char absolute[4096];
    if (!matches(path, absolute, sizeof absolute) || (flags & O_DIRECTORY))
        return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    pthread_mutex_lock(&turn);
    struct stat status;
    int is_new = (flags & O_CREAT) && stat(absolute, &status) != 0;
    int fd = -1;
    if (!(is_new && faulty(OPENS))) fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    int error = errno;
    if (fd >= 0 && fd < FILES) {
        int32_t given = number_of[fd] = __atomic_add_fetch(last_number, 1, __ATOMIC_SEQ_CST);
        put('N', given, getpid(), absolute, strlen(absolute));
        if (is_new) put('C', given, 0, NULL, 0);
        if (flags & O_TRUNC) put('T', given, 0, NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    errno = error;
    return fd;
}

#define MODE(flags) ({ mode_t mode = 0; if ((flags) & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } mode; })

int open(const char *path, int flags, ...) { return opened(path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return opened(path, flags | O_LARGEFILE, MODE(flags)); }
int openat(int folder, const char *path, int flags, ...) {
    mode_t mode = MODE(flags);
    return folder == AT_FDCWD || path[0] == '/' ? opened(path, flags, mode) : (int)syscall(SYS_openat, folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    mode_t mode = MODE(flags);
    return folder == AT_FDCWD || path[0] == '/' ? opened(path, flags, mode) : (int)syscall(SYS_openat, folder, path, flags, mode);
}

int close(int fd) {
    if (fd >= 0 && fd < FILES) number_of[fd] = 0;
    return REAL(close)(fd);
}

static ssize_t written(int fd, const void *data, size_t size, off_t offset, int at) {
    if (!at) offset = lseek(fd, 0, SEEK_CUR);
    pthread_mutex_lock(&turn);
    ssize_t done = -1;
    if (!faulty(WRITES)) done = at ? syscall(SYS_pwrite64, fd, data, size, offset) : syscall(SYS_write, fd, data, size);
    int error = errno;
    if (done > 0) put('W', number(fd), offset, data, done);
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *data, size_t size) {
    return number(fd) ? written(fd, data, size, 0, 0) : syscall(SYS_write, fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return number(fd) ? written(fd, data, size, offset, 1) : syscall(SYS_pwrite64, fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    if (!number(fd)) return syscall(SYS_writev, fd, pieces, count);
    size_t size = 0;
    for (int i = 0; i < count; i++) size += pieces[i].iov_len;
    char *whole = malloc(size ? size : 1), *end = whole;
    for (int i = 0; i < count; i++) end = (char *)memcpy(end, pieces[i].iov_base, pieces[i].iov_len) + pieces[i].iov_len;
    ssize_t done = written(fd, whole, size, 0, 0);
    int error = errno;
    free(whole);
    errno = error;
    return done;
}

int mkdir(const char *path, mode_t mode) {
    char absolute[4096];
    if (!matches(path, absolute, sizeof absolute)) return syscall(SYS_mkdir, path, mode);
    pthread_mutex_lock(&turn);
    int done = syscall(SYS_mkdir, path, mode), error = errno;
    if (!done) put('M', 0, 0, absolute, strlen(absolute));
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

int ftruncate(int fd, off_t size) {
    if (!number(fd)) return syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&turn);
    int done = faulty(WRITES) ? -1 : syscall(SYS_ftruncate, fd, size);
    int error = errno;
    if (!done) put('T', number(fd), size, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

static int synced(int fd, long call) {
    struct stat status;
    if (!number(fd) && !(fstat(fd, &status) == 0 && S_ISDIR(status.st_mode))) return syscall(call, fd);
    char folder[4096] = "";
    if (!number(fd)) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, folder, sizeof folder - 1);
        folder[length > 0 ? length : 0] = 0;
    }
    int ours = number(fd) || (prefix_length && strncmp(folder, prefix, prefix_length) == 0);
    if (control && control[SYNC_DELAY_US]) usleep(control[SYNC_DELAY_US]);
    pthread_mutex_lock(&turn);
    int done = ours && faulty(SYNCS) ? -1 : syscall(call, fd);
    int error = errno;
    if (!done && number(fd)) put('S', number(fd), 0, NULL, 0);
    else if (!done && folder[0]) put('D', 0, 0, folder, strlen(folder));
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int unlink(const char *path) {
    char absolute[4096];
    if (!matches(path, absolute, sizeof absolute)) return syscall(SYS_unlink, path);
    pthread_mutex_lock(&turn);
    int done = syscall(SYS_unlink, path), error = errno;
    if (!done) put('U', 0, 0, absolute, strlen(absolute));
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

int rename(const char *from, const char *to) {
    char old[4096], new[4096];
    if (!matches(from, old, sizeof old) || !matches(to, new, sizeof new)) return syscall(SYS_rename, from, to);
    pthread_mutex_lock(&turn);
    int done = syscall(SYS_rename, from, to), error = errno;
    if (!done) {
        char both[8200];
        int length = snprintf(both, sizeof both, "%s%c%s", old, 0, new);
        put('R', 0, 0, both, length);
    }
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

static void shift(struct timespec *now) {
    if (!control || !control[CLOCK_NS]) return;
    int64_t total = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + control[CLOCK_NS];
    now->tv_sec = total / 1000000000;
    now->tv_nsec = total % 1000000000;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int done = REAL(clock_gettime)(id, now);
    if (!done && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) shift(now);
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    int done = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return done;
}

time_t time(time_t *place) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (place) *place = exact.tv_sec;
    return exact.tv_sec;
}
