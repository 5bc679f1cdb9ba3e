#!/usr/bin/env python3
"""What kithd and kith-gateway take when nothing is asked of them, and how soon they are there: the table of SIZING.md.

    tools/deploy/measure.py [--programs build/release/bin] [--vectors 20000] [--dim 128] [--idle 30]

CPU time is that of all threads by the scheduler's count, in nanoseconds, so that other programs on the machine do not matter. Times to
ready are wall clock, from exec to the log line or the answer, medians of five.
"""
import argparse
import array
import contextlib
import glob
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROUNDS = 5


class Program:
    """A daemon whose log is a file."""

    def __init__(self, words, log):
        self.log = log
        self.began = time.monotonic()
        with open(log, "wb") as out:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=out)

    def wait(self, pattern):
        while True:
            with open(self.log, encoding="utf-8") as log:
                found = re.search(pattern, log.read())
            if found:
                return found, 1000 * (time.monotonic() - self.began)
            if self.process.poll() is not None:
                sys.exit(f"{self.log}: it ended with {self.process.returncode}")
            time.sleep(0.0005)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()

    def cpu_ns(self):
        total = 0
        for path in glob.glob(f"/proc/{self.process.pid}/task/*/schedstat"):
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
                total += int(file.read().split()[0])
        return total

    def memory_mb(self):
        """Anonymous memory, and pages of program and libraries. Pages of segments are data."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            fields = dict(re.findall(r"(\w+):\s+(\d+) kB", file.read()))
        return int(fields["RssAnon"]) * 1024 / 1e6, int(fields["RssFile"]) * 1024 / 1e6

    def idle_percent(self, seconds):
        """Once it has come to rest: two seconds in which it takes less than 2 ms."""
        deadline = time.monotonic() + 300
        while True:
            before = self.cpu_ns()
            time.sleep(2)
            if self.cpu_ns() - before < 2_000_000:
                break
            if time.monotonic() > deadline:
                sys.exit("it does not come to rest")
        before, began = self.cpu_ns(), time.monotonic()
        time.sleep(seconds)
        return 100 * (self.cpu_ns() - before) / 1e9 / (time.monotonic() - began)


def write_vectors(path, count, dim):
    rng = random.Random(1)
    with open(path, "wb") as out:
        for _ in range(count):
            out.write(dim.to_bytes(4, "little"))
            out.write(array.array("f", (rng.random() for _ in range(dim))).tobytes())


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--programs", default="build/release/bin")
    options.add_argument("--vectors", type=int, default=20000)
    options.add_argument("--dim", type=int, default=128)
    options.add_argument("--idle", type=float, default=30)
    o = options.parse_args()
    data = tempfile.mkdtemp(prefix="kith-measure-")
    run = tempfile.mkdtemp(prefix="kith-measure-", dir="/dev/shm")
    kithd_words = [os.path.join(o.programs, "kithd"), "--data", data + "/data", "--run", run + "/run"]
    kith = [os.path.join(o.programs, "kith"), "--run", run + "/run"]
    live = []

    def start():
        program = Program(kithd_words, data + "/kithd.log")
        live[:] = [program]
        return program, program.wait("event=ready")[1]

    def starts(between, how=signal.SIGTERM):
        times = []
        for _ in range(ROUNDS):
            live[0].end(how)
            between()
            times.append(start()[1])
        return statistics.median(times)

    def lose_segments():
        shutil.rmtree(run + "/run")

    gateway = None
    try:
        start()
        rows = [("kithd without collections: exec to ready", f"{starts(lambda: None):.1f} ms")]
        anon, files = live[0].memory_mb()
        rows.append(("kithd without collections: memory", f"{anon:.1f} MB, and {files:.1f} MB of program and libraries"))

        subprocess.run([*kith, "create", "demo", "--dim", str(o.dim), "--metric", "l2"], check=True, stdout=subprocess.DEVNULL)
        write_vectors(data + "/rows.fvecs", o.vectors, o.dim)
        subprocess.run([*kith, "load", "demo", data + "/rows.fvecs"], check=True, stdout=subprocess.DEVNULL)
        what = f"{o.vectors:,} x {o.dim}"
        idle = live[0].idle_percent(o.idle)
        anon, files = live[0].memory_mb()
        rows.append((f"kithd with {what}, at rest: CPU", f"{idle:.4f} % of a core"))
        rows.append((f"kithd with {what}, at rest: memory beside the segment",
                     f"{anon:.1f} MB, and {files:.1f} MB of program and libraries"))
        rows.append((f"{what}: warm start after SIGKILL, exec to ready", f"{starts(lambda: None, signal.SIGKILL):.1f} ms"))
        subprocess.run([*kith, "checkpoint", "demo"], check=True, stdout=subprocess.DEVNULL)
        rows.append((f"{what}: cold start from a checkpoint, exec to ready", f"{starts(lose_segments):.1f} ms"))
        idle = live[0].idle_percent(o.idle)
        anon, files = live[0].memory_mb()
        rows.append((f"kithd with {what}, started anew, at rest: CPU and memory", f"{idle:.4f} % of a core; {anon:.1f} MB, and {files:.1f} MB"))

        gateway = Program([os.path.join(o.programs, "kith-gateway"), "--run", run + "/run", "--port", "0", "--grpc-port", "0"], data + "/gateway.log")
        found, took = gateway.wait(r"event=listening address=\S+ port=(\d+)")
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/readyz", timeout=10) as answer:
            assert answer.status == 200
        idle = gateway.idle_percent(o.idle)
        anon, files = gateway.memory_mb()
        rows.append(("kith-gateway: exec to listening", f"{took:.1f} ms"))
        rows.append(("kith-gateway at rest: CPU and memory", f"{idle:.4f} % of a core; {anon:.1f} MB, and {files:.1f} MB"))

        text = subprocess.run([*kith, "--json", "stats", "demo"], check=True, capture_output=True, text=True).stdout
        stats = json.loads(text.splitlines()[0])
        rows.append((f"the segment of {what}, {stats['quantization']}", f"{stats['bytes_taken'] / 1e6:.1f} MB, {stats['bytes_per_vector']} bytes a vector"))
        print("| what | measured |\n|---|---:|")
        for row in rows:
            print("| {} | {} |".format(*row))
    finally:
        for program in filter(None, (gateway, *live)):
            if program.process.poll() is None:
                program.process.kill()
                program.process.wait()
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    main()
