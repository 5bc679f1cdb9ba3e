/*
 * log_salvage.h - kith wal NAME --salvage: say what a damaged log still holds, and keep it when told to.
 */
#ifndef KITHI_TOOLS_LOG_SALVAGE_H
#define KITHI_TOOLS_LOG_SALVAGE_H

#include "tools/log_place.h"

/* Without yes nothing is changed. Returns an exit status: 1 as long as the log is damaged. */
int kithi_log_salvage(const struct kithi_tool *t, const struct kithi_log_place *place, bool yes);

#endif
