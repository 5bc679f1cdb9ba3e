/*
 * results_priv.h - the caller's reusable results object.
 */
#ifndef KITHI_CLIENT_RESULTS_PRIV_H
#define KITHI_CLIENT_RESULTS_PRIV_H

#include <kith/kith.h>

#include "shm/graph/results.h"

struct kith_results {
    struct kithi_results found;
    bool generation_changed;
};

#endif
