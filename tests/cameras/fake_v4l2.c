/* A V4L2 capture device that exists only for the process that this library is preloaded into.
 *
 * FAKE_V4L2        path of an ordinary file; opening it gives the device, removing it unplugs the camera
 * FAKE_V4L2_FRAME  path of the JPEG that it sends, read anew for every frame; an empty file: nothing comes
 *
 * Motion JPEG only, streaming I/O by mmap, 50 frames per second, manual exposure and white balance, no gain.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BUFFERS = 8, ROOM = 1 << 20 };

static int device = -1;
static unsigned width = 640, height = 480, exposure = 157, automatic = 3, kelvin = 4600, white = 1, count, queued[BUFFERS], first, waiting;
static unsigned char *buffers[BUFFERS];

static int is_ours(const char *path) {
    const char *ours = getenv("FAKE_V4L2");
    return ours && path && strcmp(path, ours) == 0 && access(path, F_OK) == 0;
}

static int plug_in(void) {
    struct itimerspec often = {{0, 20000000}, {0, 20000000}};
    device = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(device, 0, &often, NULL);
    first = waiting = 0;
    return device;
}

#define OPEN(name)                                                                     \
    int name(const char *path, int flags, ...) {                                       \
        va_list rest;                                                                  \
        va_start(rest, flags);                                                         \
        int mode = va_arg(rest, int);                                                  \
        va_end(rest);                                                                  \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);                 \
        return is_ours(path) ? plug_in() : real(path, flags, mode);                    \
    }
OPEN(open)
OPEN(open64)

#define MMAP(name)                                                                               \
    void *name(void *at, size_t length, int protection, int flags, int fd, off64_t offset) {      \
        void *(*real)(void *, size_t, int, int, int, off64_t) = dlsym(RTLD_NEXT, #name);           \
        if (fd < 0 || fd != device) return real(at, length, protection, flags, fd, offset);        \
        unsigned index = offset / ROOM;                                                            \
        buffers[index] = real(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); \
        return buffers[index];                                                                     \
    }
MMAP(mmap)
MMAP(mmap64)

static int fail(int number) {
    errno = number;
    return -1;
}

static int format(struct v4l2_format *wanted) {
    if (wanted->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return fail(EINVAL);
    if (wanted->fmt.pix.width) {
        width = wanted->fmt.pix.width;
        height = wanted->fmt.pix.height;
    }
    wanted->fmt.pix.width = width;
    wanted->fmt.pix.height = height;
    wanted->fmt.pix.pixelformat = V4L2_PIX_FMT_MJPEG;
    wanted->fmt.pix.field = V4L2_FIELD_NONE;
    wanted->fmt.pix.bytesperline = 0;
    wanted->fmt.pix.sizeimage = ROOM;
    return 0;
}

static int dequeue(struct v4l2_buffer *buffer) {
    unsigned long long expired;
    struct stat frame;
    const char *path = getenv("FAKE_V4L2_FRAME");
    if (access(getenv("FAKE_V4L2"), F_OK)) return fail(ENODEV);
    if (read(device, &expired, sizeof expired) < 0 || !waiting) return fail(EAGAIN);
    if (stat(path, &frame) || !frame.st_size) {
        struct itimerspec never = {{0, 0}, {0, 0}};
        timerfd_settime(device, 0, &never, NULL);
        return fail(EAGAIN);
    }
    unsigned index = queued[first];
    first = (first + 1) % BUFFERS;
    waiting--;
    FILE *file = fopen(path, "rb");
    size_t size = fread(buffers[index], 1, ROOM, file);
    fclose(file);
    memset(buffer, 0, sizeof *buffer);
    buffer->index = index;
    buffer->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer->memory = V4L2_MEMORY_MMAP;
    buffer->bytesused = size;
    buffer->length = ROOM;
    return 0;
}

static int control(struct v4l2_control *wanted, int set) {
    unsigned *value = wanted->id == V4L2_CID_EXPOSURE_ABSOLUTE          ? &exposure
                      : wanted->id == V4L2_CID_EXPOSURE_AUTO             ? &automatic
                      : wanted->id == V4L2_CID_WHITE_BALANCE_TEMPERATURE ? &kelvin
                      : wanted->id == V4L2_CID_AUTO_WHITE_BALANCE        ? &white
                                                                         : NULL;
    if (!value) return fail(EINVAL);
    /* As with a real camera, exposure and white balance can be set only while they are not automatic. */
    if (set && value == &exposure && automatic != V4L2_EXPOSURE_MANUAL) return fail(EBUSY);
    if (set && value == &kelvin && white) return fail(EBUSY);
    if (set) *value = wanted->value;
    wanted->value = *value;
    return 0;
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *what = va_arg(rest, void *);
    va_end(rest);
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    if (fd < 0 || fd != device) return real(fd, request, what);
    if (access(getenv("FAKE_V4L2"), F_OK)) return fail(ENODEV);
    struct v4l2_buffer *buffer = what;
    switch ((unsigned)request) {
    case (unsigned)VIDIOC_QUERYCAP: {
        struct v4l2_capability *able = what;
        memset(able, 0, sizeof *able);
        strcpy((char *)able->driver, "fake");
        able->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        able->device_caps = able->capabilities;
        return 0;
    }
    case (unsigned)VIDIOC_G_INPUT: *(int *)what = 0; return 0;
    case (unsigned)VIDIOC_S_INPUT: return 0;
    case (unsigned)VIDIOC_ENUMINPUT: return buffer->index ? fail(EINVAL) : 0;
    case (unsigned)VIDIOC_G_FMT:
        ((struct v4l2_format *)what)->fmt.pix.width = 0;
        return format(what);
    case (unsigned)VIDIOC_TRY_FMT:
    case (unsigned)VIDIOC_S_FMT: return format(what);
    case (unsigned)VIDIOC_G_PARM:
    case (unsigned)VIDIOC_S_PARM: {
        struct v4l2_streamparm *pace = what;
        pace->parm.capture.timeperframe.numerator = 1;
        pace->parm.capture.timeperframe.denominator = 50;
        return 0;
    }
    case (unsigned)VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *wanted = what;
        if (wanted->memory != V4L2_MEMORY_MMAP) return fail(EINVAL);
        if (wanted->count > BUFFERS) wanted->count = BUFFERS;
        count = wanted->count;
        return 0;
    }
    case (unsigned)VIDIOC_QUERYBUF:
        if (buffer->index >= count) return fail(EINVAL);
        buffer->length = ROOM;
        buffer->m.offset = buffer->index * ROOM;
        return 0;
    case (unsigned)VIDIOC_QBUF: queued[(first + waiting++) % BUFFERS] = buffer->index; return 0;
    case (unsigned)VIDIOC_DQBUF: return dequeue(buffer);
    case (unsigned)VIDIOC_STREAMON: return 0;
    case (unsigned)VIDIOC_STREAMOFF: first = waiting = 0; return 0;
    case (unsigned)VIDIOC_QUERYCTRL: {
        struct v4l2_queryctrl *asked = what;
        struct v4l2_control known = {asked->id, 0};
        if (control(&known, 0)) return -1;
        asked->type = V4L2_CTRL_TYPE_INTEGER;
        asked->minimum = 0;
        asked->maximum = 10000;
        asked->flags = 0;
        return 0;
    }
    case (unsigned)VIDIOC_G_CTRL: return control(what, 0);
    case (unsigned)VIDIOC_S_CTRL: return control(what, 1);
    default: return fail(ENOTTY);
    }
}
