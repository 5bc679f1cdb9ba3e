#!/usr/bin/env python3
"""What the gateway adds to a search: the same query in process, over REST (wrk) and over gRPC (h2load), in one run.

    bench_gateway.py BIN [--vectors N] [--dim D] [-k K] [--ef EF] [--seconds S]

BIN is the folder of kithd, kith-gateway and bench_wire. The gateway has the first CPU alone (its lanes, too), the load generators the others.
Figures of a machine with fewer than two CPUs, or one that does something else, mean little.
"""
import argparse
import base64
import http.client
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
import random

DIM_PARSE = 768


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes((n & 0x7f | 0x80,))
        n >>= 7
    return out + bytes((n,))


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def percentile(values, share):
    return sorted(values)[int(len(values) * share)] if values else float("nan")


class Bench:
    def __init__(self, o):
        self.o, self.dir, self.running = o, tempfile.mkdtemp(prefix="kith-bench-"), []
        self.run = tempfile.mkdtemp(prefix="kith-bench-", dir="/dev/shm")
        cpus = sorted(os.sched_getaffinity(0))
        self.first, self.others = {cpus[0]}, set(cpus[1:]) or {cpus[0]}

    def start(self, name, *options, cpus=None):
        log = open(os.path.join(self.dir, name + ".log"), "ab")
        p = subprocess.Popen([os.path.join(self.o.bin, name), "--run", self.run, *options], stderr=log,
                             preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None)
        self.running.append(p)
        return p

    def log(self, name):
        with open(os.path.join(self.dir, name + ".log"), encoding="utf-8") as log:
            return log.read()

    def wait(self, what, condition):
        deadline = time.monotonic() + 60
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise SystemExit(f"bench_gateway: not within a minute: {what}")
            time.sleep(0.01)
        return value

    def ask(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"} if body is not None else {})
        r = c.getresponse()
        data = r.read()
        if r.status >= 300:
            raise SystemExit(f"bench_gateway: {method} {path}: {r.status} {data[:300]}")
        return json.loads(data)

    def fill(self):
        o, rng = self.o, random.Random(1)
        self.start("kithd", "--data", os.path.join(self.dir, "data"))
        self.wait("kithd listens", lambda: "event=ready" in self.log("kithd"))
        self.gateway = self.start("kith-gateway", "--port", "0", "--grpc-port", "0", "--access-log", "no", "--threads", "1", cpus=self.first)
        m = self.wait("kith-gateway listens", lambda: re.search(r"event=listening .*? port=(\d+) grpc_port=(\d+)", self.log("kith-gateway")))
        self.port, self.grpc_port = int(m[1]), int(m[2])
        self.ask("PUT", "/collections/bench", {"dim": o.dim, "metric": "cosine"})
        centres = [[rng.gauss(0, 1) for _ in range(o.dim)] for _ in range(200)]
        vector = lambda: struct.pack(f"<{o.dim}f", *(x + rng.gauss(0, 0.4) for x in rng.choice(centres)))
        for first in range(0, o.vectors, 2000):
            self.ask("POST", "/collections/bench/upsert", {"wait": "applied", "points": [
                {"id": str(i), "vector": base64.b64encode(vector()).decode()} for i in range(first, min(first + 2000, o.vectors))]})
        self.queries = [vector() for _ in range(200)]
        self.file("queries", b"".join(self.queries))

    def file(self, name, data):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def load(self, command):
        return subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, self.others)).stdout

    def h2load(self, clients, streams, rate=None):
        message = field(1, b"bench") + field(2, self.queries[0]) + b"\x18" + varint(self.o.k) + b"\x20" + varint(self.o.ef) + b"\x78\x02"
        body = self.file("body", struct.pack(">BI", 0, len(message)) + message)
        log = os.path.join(self.dir, "h2.log")
        if os.path.exists(log):
            os.remove(log)
        n = ["-n", str(int(rate * self.o.seconds)), f"--rps={rate // clients}"] if rate else ["-D", str(self.o.seconds), "--warm-up-time=1"]
        out = self.load(["h2load", *n, "-c", str(clients), "-m", str(streams), "-d", body, f"--log-file={log}", "-H", "content-type: application/grpc",
                         "-H", "te: trailers", f"http://127.0.0.1:{self.grpc_port}/vectordb.VectorSearch/Search"])
        us = [int(line.split()[2]) for line in open(log, encoding="ascii") if line.split()[1] == "200"]
        return float(re.search(r"finished in .*?, ([\d.]+) req/s", out)[1]), percentile(us, 0.5), percentile(us, 0.99)

    def wrk(self, body, media, path, connections):
        lua = self.file("post.lua", f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "{media}"\nwrk.body = "{"".join(f"{chr(92)}{b:03d}" for b in body)}"\n'.encode())
        out = self.load(["wrk", "-t1", f"-c{connections}", f"-d{self.o.seconds}s", "--latency", "-s", lua, f"http://127.0.0.1:{self.port}{path}"])
        unit = {"us": 1, "ms": 1000, "s": 1e6}
        at = lambda share: (lambda m: float(m[1]) * unit[m[2]])(re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", out))
        return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), at(50), at(99)

    def table(self):
        o = self.o
        rate, p99 = map(float, self.load([os.path.join(o.bin, "bench_wire"), "search", self.run, "bench", os.path.join(self.dir, "queries"), str(o.k), str(o.ef)]).split())
        print(f"| {o.vectors} x {o.dim}, k {o.k}, ef {o.ef} | searches/s | p50 us | p99 us | us beside the search |\n|---|---|---|---|---|")
        print(f"| in process, one thread | {rate:.0f} | | {p99:.0f} | |")
        path = f"/collections/bench/search?top_k={o.k}&ef_search={o.ef}&with_payload=false"
        body = json.dumps({"vector": struct.unpack(f"<{o.dim}f", self.queries[0]), "top_k": o.k, "ef_search": o.ef, "with_payload": False}).encode()
        row = lambda name, r: print(f"| {name} | {r[0]:.0f} | {r[1]:.0f} | {r[2]:.0f} | {1e6 / r[0] - 1e6 / rate:.1f} |")
        row("REST, JSON, 32 connections", self.wrk(body, "application/json", "/collections/bench/search", 32))
        row("REST, octets, 32 connections", self.wrk(self.queries[0], "application/octet-stream", path, 32))
        full = self.h2load(4, 32)
        row("gRPC, 4 connections of 32 calls", full)
        half = self.h2load(4, 32, int(full[0] / 2))
        print(f"| gRPC, half of that rate | {half[0]:.0f} | {half[1]:.0f} | {half[2]:.0f} | |\n", flush=True)
        print(self.load([os.path.join(o.bin, "bench_wire"), "parse", str(DIM_PARSE)]))

    def end(self):
        for p in reversed(self.running):
            p.kill()
            p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.run, ignore_errors=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bin")
    p.add_argument("set", nargs="?", choices=["generated"], default="generated")
    p.add_argument("--vectors", type=int, default=50000)
    p.add_argument("--dim", type=int, default=25)
    p.add_argument("-k", type=int, default=10)
    p.add_argument("--ef", type=int, default=100)
    p.add_argument("--seconds", type=int, default=5)
    bench = Bench(p.parse_args())
    try:
        bench.fill()
        bench.table()
    finally:
        bench.end()


if __name__ == "__main__":
    main()
