/* Preloaded before the daemon: the wall clock says what a file says, and so does whether it is synced.
   CLOCK_SHIM names a file of two int64: seconds to add to CLOCK_REALTIME, and 1 while nothing disciplines the clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/timex.h>
#include <time.h>

static const volatile int64_t *told;

__attribute__((constructor)) static void open_file(void) {
    int fd = open(getenv("CLOCK_SHIM"), O_RDONLY | O_CLOEXEC);
    told = mmap(NULL, 2 * sizeof *told, PROT_READ, MAP_SHARED, fd, 0);
    if (told == MAP_FAILED) abort();
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int done = ((__typeof__(&clock_gettime))dlsym(RTLD_NEXT, "clock_gettime"))(id, at);
    if (done == 0 && id == CLOCK_REALTIME) at->tv_sec += told[0];
    return done;
}

int adjtimex(struct timex *state) {
    state->status = told[1] ? STA_UNSYNC : 0;
    return told[1] ? TIME_ERROR : TIME_OK;
}
