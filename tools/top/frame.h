/*
 * frame.h - one refresh of kith top, as text for people or as JSON.
 */
#ifndef KITHI_TOOLS_TOP_FRAME_H
#define KITHI_TOOLS_TOP_FRAME_H

#include <stdio.h>

#include "tools/top/look.h"

struct kithi_top_frame {
    const char *run_dir;
    const struct kithi_top_collection *collections;
    uint32_t count;
    double interval;
    int64_t time_ms;  /* CLOCK_REALTIME */
    const char *note; /* what went wrong with the whole view; NULL: nothing */
};

void kithi_top_draw(FILE *f, const struct kithi_top_frame *frame);
void kithi_top_json(FILE *f, const struct kithi_top_frame *frame);

#endif
