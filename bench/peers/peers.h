/*
 * peers.h - the peers that a command line names, and each of them as an engine of a curve.
 */
#ifndef KITH_BENCH_PEERS_H
#define KITH_BENCH_PEERS_H

#include "bench/common/curve.h"
#include "bench/peers/peer.h"

/* The kinds that opts names and that are built in, in its order; one that is not is said to be missing. */
unsigned bench_peers_chosen(const struct bench_options *opts,
                            const struct peer_kind *out_kinds[BENCH_PEER_MAX]);

/* Empty, or bench_die. */
struct peer *bench_peer_new(const struct peer_kind *kind, const struct bench_set *set,
                            const struct bench_options *opts);

struct bench_peer {
    const struct peer_kind *kind;
    struct peer *p;
};

/*
 * Peers that hold the set, as engines: read from the file that opts->peer_index names for each of them
 * where it exists, else built (and kept there). Returns their number.
 */
unsigned bench_peers_open(const struct bench_set *set, const struct bench_options *opts,
                          struct bench_peer out_peers[BENCH_PEER_MAX], struct bench_engine *out_engines);
void bench_peers_close(struct bench_peer *peers, unsigned n);

#endif
