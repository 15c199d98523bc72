/* A Modbus server made with libmodbus: a far end that shares no line of code with ours.
 *
 *   libmodbus_server tcp            serves on a free port of 127.0.0.1 and prints "ready PORT"
 *   libmodbus_server rtu DEVICE     serves unit 1 at 9600 8N1 and prints "ready DEVICE"
 *
 * It holds some input registers of an Eastron SDM630, ends when its standard input does, and never
 * lives longer than two minutes.
 *
 * cc libmodbus_server.c -lmodbus
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <modbus/modbus.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REGISTERS 0x0180

static const struct {
    int at;
    float value;
} HELD[] = {
    {0x0000, 230.2f},     {0x0002, 231.4f},    {0x0004, 229.9f},    {0x0006, 12.75f},     {0x0008, 13.5f},
    {0x000A, 11.25f},     {0x000C, -1012.5f},  {0x000E, -1100.0f},  {0x0010, -1059.9f},   {0x0012, 2935.05f},
    {0x001E, -0.345f},    {0x0034, -3172.4f},  {0x003E, -0.93f},    {0x0046, 49.98f},     {0x0048, 83214.37f},
    {0x004A, 120.5f},     {0x004C, 41000.25f}, {0x00C8, 398.7f},    {0x00E0, (float)NAN}, {0x00F8, 2.1f},
    {0x0156, 83334.87f},  {0x015A, 27738.1f},  {0x017C, 13666.75f},
};

static void *end_with_stdin(void *unused)
{
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    _exit(0);
    return unused;
}

static modbus_mapping_t *holding(void)
{
    modbus_mapping_t *map = modbus_mapping_new(0, 0, 0, REGISTERS);
    if (map == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    for (size_t i = 0; i < sizeof HELD / sizeof HELD[0]; i++) {
        uint32_t bits;  /* by hand: modbus_set_float_abcd means another order in some versions */
        memcpy(&bits, &HELD[i].value, sizeof bits);
        map->tab_input_registers[HELD[i].at] = bits >> 16;
        map->tab_input_registers[HELD[i].at + 1] = bits & 0xFFFF;
    }
    return map;
}

/* Answer until the peer goes away. */
static void serve(modbus_t *ctx, modbus_mapping_t *map)
{
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        int length = modbus_receive(ctx, query);
        if (length > 0) {
            modbus_reply(ctx, query, length, map);
        } else if (length == -1 && errno != EMBBADCRC && errno != ETIMEDOUT) {
            return;
        }
    }
}

static int serve_tcp(modbus_mapping_t *map)
{
    struct sockaddr_in bound;
    socklen_t size = sizeof bound;
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    int listener = ctx == NULL ? -1 : modbus_tcp_listen(ctx, 1);
    if (listener == -1 || getsockname(listener, (struct sockaddr *)&bound, &size) == -1) {
        fprintf(stderr, "cannot listen: %s\n", modbus_strerror(errno));
        return 1;
    }
    printf("ready %d\n", ntohs(bound.sin_port));
    fflush(stdout);
    while (modbus_tcp_accept(ctx, &listener) != -1) {
        serve(ctx, map);
        modbus_close(ctx);
    }
    return 0;
}

static int serve_rtu(const char *device, modbus_mapping_t *map)
{
    modbus_t *ctx = modbus_new_rtu(device, 9600, 'N', 8, 1);
    if (ctx == NULL || modbus_set_slave(ctx, 1) == -1 || modbus_connect(ctx) == -1) {
        fprintf(stderr, "cannot open %s: %s\n", device, modbus_strerror(errno));
        return 1;
    }
    printf("ready %s\n", device);
    fflush(stdout);
    serve(ctx, map);
    return 0;
}

int main(int argc, char **argv)
{
    pthread_t watcher;
    alarm(120);
    pthread_create(&watcher, NULL, end_with_stdin, NULL);
    if (argc == 2 && strcmp(argv[1], "tcp") == 0) {
        return serve_tcp(holding());
    }
    if (argc == 3 && strcmp(argv[1], "rtu") == 0) {
        return serve_rtu(argv[2], holding());
    }
    fprintf(stderr, "usage: %s tcp | rtu DEVICE\n", argv[0]);
    return 2;
}
