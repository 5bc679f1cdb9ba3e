"""Memory that all requests share is used up: what is told then, and what is done and answered all the same."""
import signal
import socket
import time
import urllib.parse

from support import PATIENCE, SLOWNESS, expect, floats, main, read_all, wait_until

C = "/collections/c"
MIB = 1 << 20
DRAIN_MS = 40000 * SLOWNESS


def hold_bodies(m, room):
    """Bodies that never become whole, which leave so much of bodies_mib; room is a multiple of 512."""
    held, left = [], MIB - room
    while left:
        take = 1 << (left.bit_length() - 1)  # a body's memory doubles as it comes
        s = socket.create_connection(("127.0.0.1", m.port), timeout=PATIENCE)
        s.sendall(b"POST /collections/c/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n"
                  + b" " * (take - 1))
        held.append(s)
        left -= take
    wait_until("they are held", lambda: m.metric("kith_gateway_body_memory_bytes") == MIB - room)
    return held


def hold_answer(m):
    """An answer of more than half a MiB, all of answers_mib, whose client does not fetch it."""
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # or the system's buffers take all of it
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(PATIENCE)
    s.connect(("127.0.0.1", m.port))
    body = b'{"limit":25,"with_payload":true}'
    s.sendall(b"POST /collections/c/scroll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
              % (len(body), body))
    wait_until("it is held", lambda: m.metric("kith_gateway_answer_memory_bytes") == MIB)
    return s


def close_all(m, held):
    for s in held:
        s.close()
    wait_until("the memory is given back", lambda: m.metric("kith_gateway_body_memory_bytes") == 0)


def a_search_never_loses_a_parameter(m):
    octets = {"Content-Type": "application/octet-stream"}
    found = {200: 0, 503: 0}
    for room in (6144, 6656, 7168):  # 5632 of it are for the vector
        held = hold_bodies(m, room)
        c = m.connect()
        for blanks in range(0, 1600, 20):
            query = urllib.parse.urlencode({"top_k": 2, "with_payload": "false", "filter": " " * blanks + "n = 7"})
            a = m.post(f"{C}/search?{query}", floats(1, 0), headers=octets, connection=c)
            expect(a, 503, "busy") if a.status == 503 else expect(a, 200)
            assert a.status == 503 or [hit["id"] for hit in a.json["results"]] == ["p7"], a
            found[a.status] += 1
        c.close()
        close_all(m, held)
    assert found[200] > 20 and found[503] > 20, found


def health_and_metrics_are_told_without_memory_for_bodies(m):
    held = hold_bodies(m, 0)
    expect(m.post(C + "/search", {"vector": [1, 0]}), 503, "busy")
    for path in ("/health", "/readyz"):
        assert expect(m.get(path), 200).json["writable"], path
    assert m.get("/health").json["collections"]["served"] == 1
    assert m.metric("kith_up") == 1 and m.metric("kith_clients") > 0
    close_all(m, held)
    expect(m.post(C + "/search", {"vector": [1, 0]}), 200)


def writes_are_answered_without_memory_for_answers(m):
    s = hold_answer(m)
    expect(m.post(C + "/search", {"vector": [1, 0]}), 503, "busy")
    assert expect(m.post(C + "/upsert", {"points": [{"id": "w", "vector": [1, 2]}]}), 200).json["upserted"] == 1
    assert expect(m.ask("DELETE", C + "/vectors/w"), 200).json["deleted"] == 1
    expect(m.ask("PUT", "/collections/d", {"dim": 2, "metric": "l2"}), 201)
    expect(m.ask("DELETE", "/collections/d"), 200)
    for path in ("/livez", "/readyz", "/openapi.json", "/collections", C, C + "/stats"):
        expect(m.get(path), 200)
    s.close()
    wait_until("searches work again", lambda: m.post(C + "/search", {"vector": [1, 0]}).status == 200)


def a_stop_does_not_wait_for_a_connection_that_rests(m):
    s = hold_answer(m)  # it was begun before the stop, and says that the connection is kept
    m.gateway.send_signal(signal.SIGTERM)
    wait_until("it stops", lambda: "event=stopping" in m.log())
    began = time.monotonic()
    answer = read_all(s)
    assert answer.startswith(b"HTTP/1.1 200 ") and len(answer) > MIB // 2 and answer.endswith(b"}\n")
    s.close()
    assert m.gateway.wait(PATIENCE) == 0
    took = time.monotonic() - began
    assert took < DRAIN_MS / 2000, took
    m.gateway = None


def set_up(m):
    m.start_kithd()
    m.start_gateway(config=f"body_mib = 1\nbodies_mib = 1\nanswer_mib = 1\nanswers_mib = 1\nreceive_ms = 240000\nsend_ms = 240000\ndrain_ms = {DRAIN_MS:.0f}\n")
    m.writable()
    expect(m.ask("PUT", C, {"dim": 2, "metric": "l2"}), 201)
    for begin in range(0, 30, 3):
        points = [{"id": f"p{i}", "vector": [1, i], "metadata": {"n": i, "t": "x" * 30000}} for i in range(begin, begin + 3)]
        expect(m.post(C + "/upsert", {"points": points}), 200)


main([a_search_never_loses_a_parameter, health_and_metrics_are_told_without_memory_for_bodies,
      writes_are_answered_without_memory_for_answers, a_stop_does_not_wait_for_a_connection_that_rests], set_up)
