/* Preloaded between SQLite and the kernel: notes every write, sync and cut of a spool's files in the order in which
   they happened, so that the disk of a power cut at any moment can be made from the notes.
   One note: int64 kind ('w', 's', 't', 'm'), int64 file (0 the database, 1 its WAL) or mark, int64 place, int64 size, data. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
static int notes = -1;

static void note(int64_t kind, int64_t which, int64_t place, int64_t size, const void *data) {
    int64_t head[4] = {kind, which, place, size};
    if (notes < 0) notes = open(getenv("DISK_NOTES"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (REAL(write)(notes, head, sizeof head) != sizeof head) abort();
    if (data && REAL(write)(notes, data, size) != size) abort();
}

static int which(int fd) {
    char link[64], name[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return -1;
    name[length] = 0;
    const char *end = strrchr(name, '/');
    if (!end) return -1;
    return strcmp(end, "/spool.db") == 0 ? 0 : strcmp(end, "/spool.db-wal") == 0 ? 1 : -1;
}

void recorder_mark(long number) { note('m', number, 0, 0, NULL); }

static ssize_t noted(int fd, const void *data, off_t at, ssize_t done) {
    int file = which(fd);
    if (done > 0 && file >= 0) note('w', file, at, done, data);
    return done;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return noted(fd, data, at, REAL(pwrite64)(fd, data, size, at));
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return noted(fd, data, at, REAL(pwrite)(fd, data, size, at));
}
static int synced(int fd, int failed) {
    int file = which(fd);
    if (!failed && file >= 0) note('s', file, 0, 0, NULL);
    return failed;
}
int fsync(int fd) { return synced(fd, REAL(fsync)(fd)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)(fd)); }
static int cut(int fd, off_t size, int failed) {
    int file = which(fd);
    if (!failed && file >= 0) note('t', file, size, 0, NULL);
    return failed;
}
int ftruncate64(int fd, off64_t size) { return cut(fd, size, REAL(ftruncate64)(fd, size)); }
int ftruncate(int fd, off_t size) { return cut(fd, size, REAL(ftruncate)(fd, size)); }
