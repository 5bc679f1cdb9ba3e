/*
 * boards.c - see boards.h.
 */
#include "tests/support/boards.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "shm/layout/board.h"

static uint64_t get(const _Atomic uint64_t *w)
{
    return atomic_load_explicit(w, memory_order_relaxed); /* a private copy */
}

static void add_lane(struct test_boards *out, const struct kithi_board_lane *lane, bool timed)
{
    out->untimed += timed ? 0 : get(&lane->searches);
    out->searches += get(&lane->searches);
    out->failures += get(&lane->failures);
    out->expansions += get(&lane->expansions);
    out->restarts += get(&lane->restarts);
    out->lag += get(&lane->lag);
    out->lag_max = get(&lane->lag_max) > out->lag_max ? get(&lane->lag_max) : out->lag_max;
    out->epoch = get(&lane->epoch) > out->epoch ? get(&lane->epoch) : out->epoch;
    for (uint32_t i = 0; i < KITHI_BOARD_BUCKETS; i++)
        out->timed += get(&lane->latency[i]);
}

void test_boards_read(const char *dir, struct test_boards *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t slot = 0; slot < KITHI_BOARD_SLOTS; slot++) {
        char name[KITHI_BOARD_NAME], path[512];
        struct kithi_board_header h;
        kithi_board_name(slot, name);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (pread(fd, &h, sizeof h, 0) == (ssize_t)sizeof h && get(&h.magic) == KITHI_BOARD_MAGIC) {
            out->files++;
            for (uint32_t i = 0; i < h.lane_count && i < KITHI_BOARD_LANE_MAX; i++) {
                struct kithi_board_lane lane;
                if (pread(fd, &lane, sizeof lane, (off_t)kithi_board_size(i)) == (ssize_t)sizeof lane)
                    add_lane(out, &lane, h.timed);
            }
            if (flock(fd, LOCK_SH | LOCK_NB) == 0)
                flock(fd, LOCK_UN);
            else
                out->alive++;
        }
        close(fd);
    }
}
