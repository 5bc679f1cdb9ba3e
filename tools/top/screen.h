/*
 * screen.h - the terminal of a live view: text is drawn over what was there, in one write, so that nothing flickers; and
 * whatever ends the program, the terminal is left as it was found.
 *
 * It takes the signals that end, stop and resize: one screen a process. They end it while the terminal takes no output, too, and in
 * the background, where it neither draws nor stops: what is drawn there is drawn when the terminal is this process's again.
 */
#ifndef KITHI_TOOLS_TOP_SCREEN_H
#define KITHI_TOOLS_TOP_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Can a live view be drawn on the standard output? */
bool kithi_screen_usable(void);

/* 0 or -errno. */
int kithi_screen_open(void);
void kithi_screen_close(void);

/* Draw lines of text, cut to what fits. 0 or -errno. */
int kithi_screen_draw(const char *text, size_t len);

enum kithi_screen_event {
    KITHI_SCREEN_TIME,   /* until_ns has come */
    KITHI_SCREEN_REDRAW, /* another size, or back from the background */
    KITHI_SCREEN_NOW,    /* a key: look at once */
    KITHI_SCREEN_END,    /* q, or a signal */
};

/* Wait until until_ns (CLOCK_MONOTONIC), or until something comes before. */
enum kithi_screen_event kithi_screen_wait(uint64_t until_ns);

/* The signal that ended the view; 0: none but SIGINT or a key did. */
int kithi_screen_signal(void);

#endif
