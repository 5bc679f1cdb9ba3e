"""Frames that no client of gRPC sends: floods, slow senders, windows that never open. Bounded memory, bounded time, and others go on."""
import socket
import struct
import time

import grpc

import grpc_support as g
from grpc_support import (CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST, SETTINGS, WINDOW, Frames, frame,
                          headers, message, pb, stub)
from support import PATIENCE, SLOWNESS, floats, main, wait_until

SEARCH = "/vectordb.VectorSearch/Search"
CALM = 11  # ENHANCE_YOUR_CALM


def set_up(m):
    m.start_kithd()
    m.start_gateway(config=f"receive_ms = {500 * SLOWNESS:.0f}\nsend_ms = {800 * SLOWNESS:.0f}\nidle_ms = {3000 * SLOWNESS:.0f}\n")
    m.writable()
    s = stub(m)
    s.CreateCollection(pb.CreateCollectionRequest(collection="c", dim=256, metric=pb.METRIC_L2), timeout=PATIENCE)
    for i in range(4):
        s.Upsert(pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id=f"{i}-{j}", vector_bytes=floats(*([i] * 255 + [j])), payload_json='{"x":"%s"}' % ("y" * 2000))
                                                          for j in range(250)]), timeout=PATIENCE)


def others_go_on(m):
    def found():
        try:
            return stub(m).Search(pb.SearchRequest(collection="c", vector_bytes=floats(*[0] * 256)), timeout=PATIENCE).results
        except grpc.RpcError as error:  # threads may still be at what was given up
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
            return None
    wait_until("others are answered", found)


def refused(m, c, stream, code):
    """The call has ended with its status alone, and the log has this code; the text of headers is compressed."""
    n = m.log().count(f"code={code} ")
    got = c.until(HEADERS, stream)
    assert got and got[1] & END_STREAM, got
    assert f"code={code} " in m.log() if n else wait_until("it is in the log", lambda: f"code={code} " in m.log())


def flood(m, piece, pieces, ends=True):
    """The gateway ends a connection that sends this without an end, or takes it, and does not grow by it."""
    before = m.memory_kib()
    c = Frames(m)
    sent = 0
    try:
        while sent < pieces:
            c.send(piece(sent))
            sent += 1
        got = c.until(GOAWAY) if ends else None
        # The word may be lost when the kernel ends a connection on which more has come than was read.
        assert not ends or got is None or struct.unpack(">I", got[3][4:8])[0] == CALM, got
    except (ConnectionResetError, BrokenPipeError):
        pass  # it was ended while we were sending
    finally:
        c.close()
    others_go_on(m)
    assert m.memory_kib() - before < 30000 * SLOWNESS, (before, m.memory_kib())


def resets_without_end_are_ended(m):
    def piece(n):
        return b"".join(frame(HEADERS, END_HEADERS | END_STREAM, 2 * (n * 10 + i) + 1, headers(SEARCH)) +
                        frame(RST, 0, 2 * (n * 10 + i) + 1, struct.pack(">I", 8)) for i in range(10))
    flood(m, piece, 400)
    assert m.metric("kith_gateway_lane_requests", lane="search", state="queued") == 0


def pings_settings_priorities_and_empty_frames_without_end_are_ended(m):
    flood(m, lambda n: frame(PING, 0, 0, b"12345678") * 100, 200)
    flood(m, lambda n: frame(SETTINGS, 0, 0) * 100, 200)
    flood(m, lambda n: frame(PRIORITY, 0, 1, b"\0\0\0\0\x10") * 100, 200)
    def empty(n):
        first = frame(HEADERS, END_HEADERS, 1, headers("/vectordb.VectorSearch/UpsertStream")) if n == 0 else b""
        return first + frame(DATA, 0, 1) * 100
    flood(m, empty, 200)


def continuations_without_end_are_ended(m):
    c = Frames(m)
    try:
        c.send(frame(HEADERS, 0, 1, headers(SEARCH)))
        for _ in range(2000):
            c.send(frame(CONTINUATION, 0, 1, g.literal("x", "y" * 100) * 20))
        assert c.until(GOAWAY) is not None or c.next() is None
    except (ConnectionResetError, BrokenPipeError):
        pass
    c.close()
    others_go_on(m)


def headers_have_a_ceiling(m):
    c = Frames(m)
    block = headers(SEARCH) + g.literal("x-long", "y" * 400) * 45
    c.send(frame(HEADERS, 0, 1, block[:16000]) + frame(CONTINUATION, END_HEADERS, 1, block[16000:]))
    refused(m, c, 1, "headers")
    c.close()
    others_go_on(m)


def too_many_streams_are_refused(m):
    c = Frames(m)
    for i in range(200):
        c.send(frame(HEADERS, END_HEADERS, 2 * i + 1, headers(SEARCH)))
    refused = 0
    while refused < 72:
        got = c.until(RST)
        assert got, refused
        refused += struct.unpack(">I", got[3])[0] == 7  # REFUSED_STREAM
    others_go_on(m)
    c.close()


def slow_senders_are_told_and_ended(m):
    c = Frames(m)
    c.call(1, SEARCH, message(b"", length=100)[:3], end=False)  # never goes on
    refused(m, c, 1, "too_slow")
    reset = c.until(RST, 1)
    assert reset and struct.unpack(">I", reset[3])[0] == 0, "the status comes before the reset, which is none of an error"
    c.close()
    c = Frames(m)
    c.send(frame(HEADERS, END_HEADERS, 1, headers(SEARCH))[:30])  # not even its headers
    began = time.monotonic()
    while c.next():
        pass
    assert time.monotonic() - began < 10 * SLOWNESS
    c.close()
    c = Frames(m)
    c.s.close()
    # Half of a preface, and other nonsense on the port of gRPC.
    for first in (b"PRI * HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01", g.PREFACE + b"\xff" * 100):
        with socket.create_connection(("127.0.0.1", m.grpc_port), timeout=PATIENCE) as s:
            s.sendall(first)
            try:
                while s.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    others_go_on(m)
    assert m.metric("kith_gateway_events_total", kind="slow_sender") >= 2


def windows_that_never_open_hold_nothing_for_long(m):
    """A hundred answers of a megabyte each whose client opens no window."""
    before = m.memory_kib()
    ask = message(pb.SearchRequest(collection="c", vector_bytes=floats(*[0] * 256), top_k=1000, with_vector=True).SerializeToString())
    open_ = []
    for _ in range(4):
        c = Frames(m, settings=struct.pack(">HI", 4, 0))
        for i in range(5):
            c.call(2 * i + 1, SEARCH, ask)
        open_.append(c)
    wait_until("answers are there", lambda: m.metric("kith_gateway_answer_memory_bytes") > 1 << 20)
    wait_until("they are given up", lambda: m.metric("kith_gateway_answer_memory_bytes") < 1 << 20)
    for c in open_:
        assert c.until(RST)
        c.close()
    others_go_on(m)
    assert m.metric("kith_gateway_events_total", kind="slow_receiver") >= 20
    assert m.memory_kib() - before < 150000 * SLOWNESS, (before, m.memory_kib())


def who_reads_nothing_is_left(m):
    """The window is open, and the socket is not read from: pings pile up nowhere."""
    c = Frames(m, settings=struct.pack(">HI", 4, 0x7fffffff))
    c.send(frame(WINDOW, 0, 0, struct.pack(">I", 0x7fff0000 - 65535)))
    ask = message(pb.SearchRequest(collection="c", vector_bytes=floats(*[0] * 256), top_k=1000, with_vector=True).SerializeToString())
    for i in range(30):
        c.call(2 * i + 1, SEARCH, ask)
    wait_until("it is ended", lambda: m.metric("kith_gateway_connections") <= 2 or m.metric("kith_gateway_events_total", kind="slow_receiver") >= 21)
    c.close()
    others_go_on(m)
    wait_until("its answers are gone", lambda: m.metric("kith_gateway_answer_memory_bytes") < 1 << 20)


def frames_of_messages_are_checked(m):
    c = Frames(m)
    def ends(stream, body, what, end=True):
        c.call(stream, SEARCH, body, end=end)
        refused(m, c, stream, what)
    ends(1, message(b"abc", flag=1), "compressed")
    ends(3, message(b"", length=1 << 31), "too_large")
    ends(5, message(b"") + message(b""), "frame")
    ends(7, b"\0\0\0", "frame")
    ends(9, b"", "frame")
    ends(11, message(b"\x0a\x01c\x12"), "protobuf")
    c.send(frame(HEADERS, END_HEADERS | END_STREAM, 13, b"".join(g.literal(n, v) for n, v in [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")])))
    got = c.until(HEADERS, 13)
    assert got and got[1] & END_STREAM and got[3][0] != 0x88, got  # another :status than 200, which HPACK has as one byte
    others_go_on(m)
    c.close()


if __name__ == "__main__":
    main([resets_without_end_are_ended, pings_settings_priorities_and_empty_frames_without_end_are_ended, continuations_without_end_are_ended,
          headers_have_a_ceiling, too_many_streams_are_refused, slow_senders_are_told_and_ended, windows_that_never_open_hold_nothing_for_long,
          who_reads_nothing_is_left, frames_of_messages_are_checked], set_up)
