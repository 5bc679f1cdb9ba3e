"""kithd is killed, stops and comes back while everybody goes on; the gateway itself is told to stop."""
import json
import os
import re
import signal
import socket
import struct
import threading
import time

from support import PATIENCE, SLOWNESS, expect, main, read_all, wait_until

C = "/collections/c"
HEADERS = {"Content-Type": "application/json"}


class Load:
    """Threads that search and write without a pause, and what they were answered."""

    def __init__(self, m):
        self.m, self.ending = m, False
        self.searches, self.writes, self.acknowledged, self.odd = [], [], [], []
        self.slowest = 0.0
        self.threads = [threading.Thread(target=self.search) for _ in range(2)]
        self.threads += [threading.Thread(target=self.write, args=(i,)) for i in range(3)]
        for t in self.threads:
            t.start()

    def search(self):
        c = self.m.connect()
        while not self.ending:
            self.searches.append(self.m.post(C + "/search", {"vector": [1, 0]}, connection=c).status)
        c.close()

    def write(self, number):
        c, n = self.m.connect(), 0
        while not self.ending:
            n += 1
            key = f"w{number}-{n}"
            began = time.monotonic()
            a = self.m.post(C + "/upsert", {"points": [{"id": key, "vector": [number, n % 100]}]}, connection=c)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.writes.append(a.status)
            if a.status == 200:
                self.acknowledged.append(key)
            elif a.status != 503 or a.code not in ("no_daemon", "outcome_unknown", "starting", "busy"):
                self.odd.append(a)
        c.close()

    def end(self):
        self.ending = True
        for t in self.threads:
            t.join()


def searches_go_on_and_writes_come_back_when_kithd_is_killed(m):
    load = Load(m)
    try:
        for _ in range(2):
            n = len(load.acknowledged)
            wait_until("writes are acknowledged", lambda: len(load.acknowledged) > n + 20)
            m.kithd.kill()
            m.kithd.wait()
            n = load.writes.count(503)
            wait_until("writes are refused", lambda: load.writes.count(503) > n + 20)
            n = len(load.searches)
            wait_until("searches go on", lambda: len(load.searches) > n + 20)
            a = expect(m.get("/readyz"), 200).json
            assert a["searchable"] and not a["writable"], a
            expect(m.get("/livez"), 200)
            assert m.metric("kith_up") == 0 and m.metric("kith_vectors", collection="c") > 0
            expect(m.ask("PUT", "/collections/new", {"dim": 2, "metric": "l2"}), 503, "no_daemon")
            m.start_kithd()
            n = len(load.acknowledged)
            wait_until("writes are acknowledged again", lambda: len(load.acknowledged) > n + 20, PATIENCE * 2)
    finally:
        load.end()
    assert set(load.searches) == {200}, {s: load.searches.count(s) for s in set(load.searches)}
    assert not load.odd, load.odd[0]
    assert load.slowest < 25, f"a write took {load.slowest:.1f} s"
    for key in load.acknowledged:
        expect(m.get(f"{C}/vectors/{key}?with_vector=false"), 200)


def a_kithd_that_hangs_is_not_waited_for_forever(m):
    m.kithd.send_signal(signal.SIGSTOP)
    try:
        a = expect(m.post(C + "/upsert", {"points": [{"id": "hung", "vector": [1, 2]}]}), 504, "outcome_unknown")
        assert a.json["error"]["outcome"] == "unknown"
        wait_until("searches go on", lambda: m.post(C + "/search", {"vector": [1, 0]}).status == 200)
        wait_until("/health is 200, and says so", lambda: (a := m.get("/health")).status == 200 and not a.json["writable"])
        # One thread writes in this gateway and it is held: others are told at once, and nothing of theirs is done.
        a = expect(m.post(C + "/upsert", {"points": [{"id": "late", "vector": [1, 2]}]}), 503, "busy")
        assert a.json["error"]["outcome"] == "nothing_done"
        assert m.metric("kith_gateway_lane_requests", lane="write", state="stuck") == 1
        expect(m.post(C + "/checkpoints"), 504, "outcome_unknown")
    finally:
        m.kithd.send_signal(signal.SIGCONT)
    wait_until("writes work again", lambda: m.post(C + "/upsert", {"points": [{"id": "x", "vector": [1, 2]}]}).status == 200)
    expect(m.get(C + "/vectors/late"), 404)
    expect(m.get(C + "/vectors/hung"), 200)
    m.stop_gateway()
    m.start_gateway(config="write_threads = 4\n")


def a_kithd_without_places_is_told_apart(m):
    m.kithd.kill()
    m.kithd.wait()
    m.start_kithd("clients = 2\n")
    held = []
    try:
        m.writable()
        wait_until("writes work", lambda: m.post(C + "/upsert", {"points": [{"id": "x", "vector": [1, 2]}]}).status == 200)
        for _ in range(8):
            s = socket.socket(socket.AF_UNIX)
            s.connect(m.run + "/kithd.sock")
            held.append(s)
        a = expect(m.ask("PUT", "/collections/other", {"dim": 2, "metric": "l2"}), 503, "busy")
        assert a.json["error"]["outcome"] == "nothing_done"
        expect(m.post(C + "/search", {"vector": [1, 0]}), 200)
    finally:
        for s in held:
            s.close()
    wait_until("there are places again", lambda: m.post(C + "/upsert", {"points": [{"id": "x", "vector": [1, 2]}]}).status == 200)
    m.kithd.kill()
    m.kithd.wait()
    m.start_kithd()
    m.writable()


def watching_answers_while_every_other_thread_is_busy(m):
    for k in range(3):
        points = [{"id": f"p{i}", "vector": [i % 97, i % 89]} for i in range(k * 1000, k * 1000 + 1000)]
        expect(m.post(C + "/upsert", {"points": points, "wait": "applied"}), 200)
    beside = json.dumps({"searches": [{"vector": [i, 1], "ef_search": 2000, "top_k": 2000} for i in range(64)]})
    wide = json.dumps({"searches": [{"vector": [i, 1], "exact": True, "top_k": 1000} for i in range(400)]})
    busy = []
    for body in [beside, wide] * 6:
        c = m.connect()
        c.request("POST", C + "/search/batch", body, HEADERS)
        busy.append(c)
    wait_until("threads are busy", lambda: all(m.metric("kith_gateway_lane_requests", lane=lane, state="queued") > 0 for lane in ("search", "wide")))
    for path in ("/livez", "/health", "/metrics", C + "/stats", "/collections"):
        began = time.monotonic()
        expect(m.get(path), 200)
        assert time.monotonic() - began < PATIENCE / 2, path
    for c in busy:
        c.close()
    wait_until("they are given up", lambda: all(m.metric("kith_gateway_lane_requests", lane=lane, state="queued") == 0 for lane in ("search", "wide")))
    expect(m.post(C + "/search", {"vector": [1, 0]}), 200)


def cpu_seconds(m):
    with open(f"/proc/{m.gateway.pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def a_batch_ends_at_the_deadline_of_its_request(m):
    """Seen by the CPU that it takes, as other programs on the machine do not change that."""
    body = {"searches": [{"vector": [i, 1], "exact": True, "top_k": 3000, "with_payload": False, "score_threshold": 0} for i in range(1000)]}
    m.stop_gateway()
    m.start_gateway(config=f"request_ms = {120000 * SLOWNESS:.0f}\nwrite_threads = 4\n")
    expect(m.post(C + "/search", {"vector": [1, 0]}), 200)  # the collection is open
    began, before = time.monotonic(), cpu_seconds(m)
    expect(m.post(C + "/search/batch", body, patience=120 * SLOWNESS), 200)
    took, whole = time.monotonic() - began, cpu_seconds(m) - before
    m.stop_gateway()
    m.start_gateway(config=f"request_ms = {max(20, took * 100):.0f}\nwrite_threads = 4\n")
    expect(m.post(C + "/search", {"vector": [1, 0]}), 200)  # the collection is open
    begun = []

    def given_up():  # on a busy machine it may not be begun in time
        begun[:] = [cpu_seconds(m)]
        a = m.post(C + "/search/batch", body)
        return expect(a, 504, "timeout") if a.status != 503 else expect(a, 503, "busy") and None
    wait_until("it is given up", given_up)
    wait_until("it ends", lambda: m.metric("kith_gateway_lane_requests", lane="wide", state="stuck") == 0)
    assert cpu_seconds(m) - begun[0] < whole * 0.6, (cpu_seconds(m) - begun[0], whole)
    # With a deadline of its own a search has what it found by then, as before.
    m.stop_gateway()
    m.start_gateway(config=f"request_ms = {4000 * SLOWNESS:.0f}\nadmin_ms = {4000 * SLOWNESS:.0f}\nwrite_threads = 4\n")
    expect(m.post(C + "/search/batch", dict(body, deadline_ms=1)), 200)


def a_write_whose_client_went_away_has_its_line(m):
    body = b'{"points":[{"id":"gone","vector":[1,2]}]}'
    m.kithd.send_signal(signal.SIGSTOP)
    try:
        s = socket.create_connection(("127.0.0.1", m.port), timeout=PATIENCE)
        s.sendall(b"POST /collections/c/upsert HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: gone-1\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_until("it is under way", lambda: m.metric("kith_gateway_lane_requests", lane="write", state="running") == 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()  # which resets the connection
        line = wait_until("it has a line", lambda: re.search("id=gone-1 .*", m.log()))[0]
        assert "method=POST" in line and "route=upsert status=499 code=peer_gone" in line, line
    finally:
        m.kithd.send_signal(signal.SIGCONT)
    assert m.metric("kith_gateway_requests_total", route="upsert", status="499") == 1
    wait_until("it is done all the same", lambda: m.get(C + "/vectors/gone").status == 200)
    assert m.log().count("id=gone-1 ") == 1


def handles_are_closed_when_nobody_uses_them(m):
    expect(m.post(C + "/upsert", {"points": [{"id": "x", "vector": [1, 2]}]}), 200)
    assert m.metric("kith_gateway_open_collections") >= 1
    # Metrics use a handle themselves; that of the write has a socket, and goes after 10 s.
    wait_until("the handle of the write is closed", lambda: m.metric("kith_gateway_open_collections") == 1, 30)


def told_to_stop_it_ends_what_it_has_begun(m):
    idle = [m.connect() for _ in range(5)]
    for c in idle:
        expect(m.get("/livez", connection=c), 200)
    half = socket.create_connection(("127.0.0.1", m.port), timeout=PATIENCE)
    half.sendall(b"POST /collections/c/search HTTP/1.1\r\nHost: localhost\r\n")
    waiting = socket.create_connection(("127.0.0.1", m.port), timeout=PATIENCE)
    epoch = m.get(C).json["epoch"]
    body = json.dumps({"vector": [1, 0], "min_epoch": epoch + 1, "deadline_ms": 3000}).encode()
    waiting.sendall(b"POST /collections/c/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(body), body))
    wait_until("it waits", lambda: m.metric("kith_gateway_waiting_for_epoch") == 1)
    m.gateway.send_signal(signal.SIGTERM)
    assert b"503" in read_all(half)[:20]
    answer = read_all(waiting)
    assert b"504" in answer[:20] and b"epoch_not_visible" in answer and b"Connection: close" in answer, answer
    assert m.gateway.wait(PATIENCE) == 0
    m.gateway = None
    for c in idle:
        c.close()


def set_up(m):
    m.start_kithd()
    m.start_gateway(config=f"request_ms = {4000 * SLOWNESS:.0f}\nadmin_ms = {4000 * SLOWNESS:.0f}\nwrite_threads = 1\n")
    m.writable()
    expect(m.ask("PUT", C, {"dim": 2, "metric": "l2"}), 201)


main([a_kithd_that_hangs_is_not_waited_for_forever, searches_go_on_and_writes_come_back_when_kithd_is_killed,
      a_kithd_without_places_is_told_apart,
      watching_answers_while_every_other_thread_is_busy, a_batch_ends_at_the_deadline_of_its_request,
      a_write_whose_client_went_away_has_its_line, handles_are_closed_when_nobody_uses_them, told_to_stop_it_ends_what_it_has_begun], set_up)
