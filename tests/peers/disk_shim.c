/* Preloaded between SQLite and the kernel: the n-th write or sync of a spool's files fails, once or for ever;
   or every sync hangs until it is let go; or every read takes its time.
   Only file descriptors whose name contains "spool.db" are touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long fail_at, calls, failed;
static int once, with_errno;

void shim_arm(long n, int only_once, int error) { fail_at = n; once = only_once; with_errno = error; calls = failed = 0; }
long shim_failed(void) { return failed; }

static volatile int hold, held;
static long read_us, reads;

void shim_hold(int on) { hold = on; }
int shim_held(void) { return held; }
void shim_slow_reads(long us) { read_us = us; reads = 0; }
long shim_reads(void) { return reads; }

static int ours(int fd) {
    char link[64], name[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    return strstr(name, "spool.db") && !strstr(name, "-shm");
}

static int fails(int fd) {
    if (!fail_at || !ours(fd)) return 0;
    calls++;
    if (calls == fail_at || (calls > fail_at && !once)) { failed++; errno = with_errno; return 1; }
    return 0;
}

static int sync_fails(int fd) {
    while (hold && ours(fd)) { held = 1; usleep(1000); }
    held = 0;
    return fails(fd);
}

static void read_slowly(int fd) {
    if (read_us && ours(fd)) { reads++; usleep(read_us); }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fails(fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails(fd) ? -1 : REAL(pwrite)(fd, data, size, at);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t at) {
    read_slowly(fd);
    return REAL(pread64)(fd, data, size, at);
}
ssize_t pread(int fd, void *data, size_t size, off_t at) {
    read_slowly(fd);
    return REAL(pread)(fd, data, size, at);
}
ssize_t write(int fd, const void *data, size_t size) { return fails(fd) ? -1 : REAL(write)(fd, data, size); }
int fsync(int fd) { return sync_fails(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return sync_fails(fd) ? -1 : REAL(fdatasync)(fd); }
int ftruncate64(int fd, off64_t size) { return fails(fd) ? -1 : REAL(ftruncate64)(fd, size); }
