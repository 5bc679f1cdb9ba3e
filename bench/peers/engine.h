/*
 * engine.h - the peer as an engine of a curve.
 */
#ifndef KITH_BENCH_PEER_ENGINE_H
#define KITH_BENCH_PEER_ENGINE_H

#include "bench/common/curve.h"
#include "bench/peers/peer.h"

/*
 * A peer that holds the set: read from opts->peer_index where that exists, else built (and kept
 * there). NULL when none is built in or --no-peer was given. Fills *out_engine otherwise.
 */
struct peer *peer_engine_new(const struct bench_set *set, const struct bench_options *opts,
                             struct bench_engine *out_engine);

#endif
