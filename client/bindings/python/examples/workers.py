"""A small search service with several worker processes that share one index.

    python3 workers.py COLLECTION [--workers 8] [--port 8091] [--run DIR]

    curl 'http://127.0.0.1:8091/like?id=north&k=5'
    curl 'http://127.0.0.1:8091/memory'       who maps the segment, and what of it counts for each

/memory shows PSS, the proportional set size, in which a page that N processes map counts 1/N for each: all workers together take one copy.
"""
from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kith


def segment_memory(pid: int) -> dict[str, int]:
    """KiB of the segment's mapping in a process: rss counts each page whole, pss by the number of processes that map it, private are its own."""
    sums = {"rss": 0, "pss": 0, "private": 0}
    inside = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            head = line.split()
            if not head[0].endswith(":"):
                inside = head[-1].endswith("/segment")
            elif inside:
                key = head[0][:-1].lower()
                if key in ("rss", "pss"):
                    sums[key] += int(head[1])
                elif key in ("private_clean", "private_dirty"):
                    sums["private"] += int(head[1])
    return sums


def siblings() -> list[int]:
    """The workers: the children of the parent of this one."""
    parent = os.getppid()
    with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as children:
        return [int(pid) for pid in children.read().split()]


class Service(BaseHTTPRequestHandler):
    index: kith.Index

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            if url.path == "/like":
                hits = self.index.search_id(query["id"], int(query.get("k", 10)), timeout=0.05)
                self.answer(200, {"worker": os.getpid(), "epoch": hits.info.epoch,
                                  "hits": [{"id": h.id, "distance": h.distance} for h in hits]})
            elif url.path == "/memory":
                each = {str(pid): segment_memory(pid) for pid in siblings()}
                self.answer(200, {"segment_kib": self.index.memory()["file_bytes"] // 1024, "processes": each,
                                  "pss_kib": sum(m["pss"] for m in each.values())})
            else:
                self.answer(404, {"error": "there are /like?id=ID&k=K and /memory"})
        except kith.NotFoundError as e:
            self.answer(404, {"error": str(e)})
        except (KeyError, ValueError) as e: # kith.InvalidError is one of them
            self.answer(400, {"error": str(e)})
        except kith.Error as e:
            self.answer(503, {"error": str(e), "code": e.name})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(HTTPServer):
    """A socket that the workers inherit; the kernel gives each connection to one that waits."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.getsockname(), Service, bind_and_activate=False)
        self.socket.close()
        self.socket = listening


def main() -> int:
    parser = argparse.ArgumentParser(description="search one shared index with several worker processes")
    parser.add_argument("collection")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--port", type=int, default=8091)
    parser.add_argument("--run", default=None)
    args = parser.parse_args()

    try:
        kith.open(args.collection, run_dir=args.run).close() # what is wrong is said once, and not by every worker
    except kith.Error as e:
        print(e, file=sys.stderr)
        return 1
    listening = socket.create_server(("127.0.0.1", args.port), backlog=128)
    print(f"listening on port {listening.getsockname()[1]}", flush=True)

    def work() -> int:
        """A worker: the same socket, the same pages of the same segment.

        It could go on with the index of its parent. But a fork does not inherit which pages of a shared mapping are mapped; opening it once more,
        with prefault, maps all of them before the first request comes. Either way there is one copy.
        """
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            Service.index = kith.open(args.collection, run_dir=args.run, prefault=True)
            Server(listening).serve_forever()
        return pid

    def stop(*_: Any) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    pids = {work() for _ in range(args.workers)}
    try:
        while True:
            pids.remove(os.wait()[0])
            pids.add(work()) # one that crashed cost nobody else anything
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
