"""What a call from Python costs: searches by the package beside the same searches by a loop in C, in one process, in turns.

    KITH_LIBRARY=libkith.so.0 PYTHONPATH=... python3 calls.py --kithd KITHD --loop LIBRARY [--load KITH] [--workers]

Times are CPU time of the thread, medians of the rounds. The collection is small, so that the search itself hides little. --load compares
Index.load() of a numpy array with `kith load` of the same rows; --workers has eight processes map one segment, and shows their PSS.
"""
import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import kith
from kith._hits import FLOATS, results_new
from kith._library import ffi, lib

DIM, K = 128, 10


def cpu_ns(f, n):
    begin = time.thread_time_ns()
    for _ in range(n):
        f()
    return (time.thread_time_ns() - begin) / n


def calls(index, loop, query, rounds, turn):
    options = kith.SearchOptions(ef=K)
    o, r, pointer = options.pointer, results_new(), ffi.from_buffer(FLOATS, query)

    def found():
        hits = index.search(query, K, options=options)
        return hits.ids, hits.distances

    def in_c(read):
        ns = loop.bench_loop(index._p, pointer, DIM, K, o, r, turn, read)
        assert ns > 0, ns
        return ns

    bare, p, search = lib.kith_search, index._p, index.search
    ways = [
        ("C, kith_search", lambda: in_c(0)),
        ("C, with ids and distances", lambda: in_c(1)),
        ("Python, the bare call by cffi", lambda: cpu_ns(lambda: bare(p, pointer, DIM, K, o, r), turn)),
        ("Python, index.search()", lambda: cpu_ns(lambda: search(query, K, options=options), turn)),
        ("Python, with ids and distances", lambda: cpu_ns(found, turn)),
    ]
    times = {name: [] for name, _ in ways}
    for i in range(rounds + 1):
        for name, way in ways if i % 2 else reversed(ways):
            ns = way()
            if i: # the first round warms up
                times[name].append(ns)
    base = {False: times[ways[0][0]], True: times[ways[1][0]]}
    print(f"\n{len(index)} x {DIM}, k = {K}, ef = {K}; medians of {rounds} rounds of {turn} searches\n")
    print("| a search by | us | above C, us |\n|---|---:|---:|")
    for name, _ in ways:
        above = statistics.median(t - c for t, c in zip(times[name], base["with" in name]))
        print(f"| {name} | {statistics.median(times[name]) / 1e3:.2f} | {above / 1e3:.2f} |")


def load(program, run, top, count):
    rows = np.random.default_rng(7).random((count, DIM), dtype=np.float32)
    path = os.path.join(top, "rows.npy")
    np.save(path, rows)
    rates = {"kith": [], "python": []}
    for turn in ("kith", "python", "python", "kith"):
        kith.create("load", DIM, "l2", run_dir=run)
        begin = time.monotonic()
        if turn == "kith":
            subprocess.run([program, "--run", run, "load", "load", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:
            with kith.open("load", run_dir=run) as index:
                index.load(np.load(path, mmap_mode="r"))
        rates[turn].append(count / (time.monotonic() - begin))
        kith.drop("load", run_dir=run)
        print(f"{turn}: {rates[turn][-1]:,.0f} vectors a second", flush=True)
    print(f"{count} x {DIM}: Index.load() at {sum(rates['python']) / sum(rates['kith']):.2f} of kith load")


def pss_of_segment(pid):
    total, inside = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as maps:
        for line in maps:
            head = line.split()
            if not head[0].endswith(":"):
                inside = head[-1].endswith("/segment")
            elif inside and head[0] == "Pss:":
                total += int(head[1])
    return total


def workers(name, run, n):
    index = kith.open(name, run_dir=run, prefault=True)
    query, pids, release = np.zeros(DIM, np.float32), [], os.pipe()
    for _ in range(n):
        pid = os.fork()
        if pid == 0:
            os.close(release[1])
            index.search(query, K, exact=True)
            os.read(release[0], 1)
            os._exit(0)
        pids.append(pid)
    time.sleep(2)
    each = [pss_of_segment(pid) for pid in pids]
    segment = index.memory()["file_bytes"] // 1024
    print(f"\nsegment {segment} KiB; pss of it in each of {n} workers: {', '.join(map(str, each))} KiB, in all {sum(each)} KiB")
    os.close(release[1])
    for pid in pids:
        os.waitpid(pid, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kithd", required=True)
    parser.add_argument("--loop", required=True, help="bench_bindings_loop, the loop in C")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--turn", type=int, default=2000)
    parser.add_argument("--load", metavar="KITH", help="compare with this kith's load")
    parser.add_argument("--count", type=int, default=1_000_000, help="vectors of --load and --workers")
    parser.add_argument("--workers", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)) # kithd and its directories go, too

    top = tempfile.mkdtemp(prefix="kith-bench-")
    run = tempfile.mkdtemp(prefix="kith-bench-", dir="/dev/shm")
    with open(os.path.join(top, "kithd.log"), "w", encoding="utf-8") as log:
        kithd = subprocess.Popen([args.kithd, "--data", os.path.join(top, "data"), "--run", run], stderr=log)
    try:
        while not os.path.exists(os.path.join(run, "kithd.sock")):
            assert kithd.poll() is None, "kithd has ended"
            time.sleep(0.01)
        rows = np.random.default_rng(5).random((K, DIM), dtype=np.float32)
        kith.create("calls", DIM, "l2", run_dir=run)
        index = kith.open("calls", run_dir=run, counters=False)
        index.load(rows)
        from cffi import FFI
        outside = FFI()
        outside.cdef("double bench_loop(void *, const float *, size_t, uint32_t, const void *, void *, uint32_t, int);")
        c = outside.dlopen(args.loop)

        class Loop: # its declarations are another cffi's: addresses cross, types do not
            @staticmethod
            def bench_loop(index, query, dim, k, o, r, n, read):
                address = [int(ffi.cast("uintptr_t", p)) for p in (index, query, o, r)]
                i, q, o, r = (outside.cast("void *", a) for a in address)
                return c.bench_loop(i, outside.cast("const float *", q), dim, k, o, r, n, read)
        calls(index, Loop, rows[3], args.rounds, args.turn)
        if args.load:
            load(args.load, run, top, args.count)
        if args.workers:
            kith.create("shared", DIM, "l2", run_dir=run)
            with kith.open("shared", run_dir=run) as shared:
                shared.load(np.random.default_rng(7).random((min(args.count, 100_000), DIM), dtype=np.float32), durability="none")
            workers("shared", run, 8)
    finally:
        kithd.terminate()
        kithd.wait()
        shutil.rmtree(run, ignore_errors=True)
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    main()
