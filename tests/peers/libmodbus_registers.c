/* A Modbus TCP server made with libmodbus, whose registers come over standard input: the wire and the frames are
 * somebody else's on both sides of the register.
 *
 * Prints "ready PORT". Each line "FC ADDRESS WORD" (decimal) sets one register of function 3 or 4; the line "go"
 * answers "ok" when everything before it is set. Ends when its standard input does, and after two minutes.
 *
 * cc libmodbus_registers.c -lmodbus -pthread
 */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus/modbus.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static modbus_mapping_t *map;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *take_registers(void *unused)
{
    char line[64];
    unsigned fc, at, word;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strncmp(line, "go", 2) == 0) {
            printf("ok\n");
            fflush(stdout);
        } else if (sscanf(line, "%u %u %u", &fc, &at, &word) == 3 && at <= 0xFFFF) {
            pthread_mutex_lock(&lock);
            (fc == 3 ? map->tab_registers : map->tab_input_registers)[at] = (uint16_t)word;
            pthread_mutex_unlock(&lock);
        }
    }
    _exit(0);
    return unused;
}

static void serve(modbus_t *ctx)
{
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        int length = modbus_receive(ctx, query);
        if (length > 0) {
            pthread_mutex_lock(&lock);
            modbus_reply(ctx, query, length, map);
            pthread_mutex_unlock(&lock);
        } else if (length == -1 && errno != ETIMEDOUT) {
            return;
        }
    }
}

int main(void)
{
    struct sockaddr_in bound;
    socklen_t size = sizeof bound;
    pthread_t reader;
    alarm(120);
    map = modbus_mapping_new(0, 0, 65536, 65536);
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    int listener = ctx == NULL || map == NULL ? -1 : modbus_tcp_listen(ctx, 1);
    if (listener == -1 || getsockname(listener, (struct sockaddr *)&bound, &size) == -1) {
        fprintf(stderr, "cannot listen: %s\n", modbus_strerror(errno));
        return 1;
    }
    printf("ready %d\n", ntohs(bound.sin_port));
    fflush(stdout);
    pthread_create(&reader, NULL, take_registers, NULL);
    while (modbus_tcp_accept(ctx, &listener) != -1) {
        serve(ctx);
        modbus_close(ctx);
    }
    return 0;
}
