"""What is no request, or too much of one: refused with the right status, and never understood in two ways."""
import socket
import threading
import time

from support import PATIENCE, expect, main, read_all, wait_until

HOST = b"Host: localhost\r\n"
SEARCH = b'{"vector":[1,0]}'


def status(answer):
    """The statuses of all answers in what came back."""
    return [int(line[9:12]) for line in answer.split(b"\n") if line.startswith(b"HTTP/1.1 ")]


def post(headers, body=SEARCH, line=b"POST /collections/c/search HTTP/1.1\r\n"):
    return line + HOST + b"Content-Type: application/json\r\n" + headers + b"\r\n" + body


def requests_that_two_readers_could_understand_in_two_ways_are_refused(m):
    length = b"Content-Length: %d\r\n" % len(SEARCH)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SEARCH), SEARCH)
    te = b"Transfer-Encoding: chunked\r\n"
    assert status(m.raw(post(length + b"Connection: close\r\n"))) == [200]
    assert status(m.raw(post(te + b"Connection: close\r\n", chunks))) == [200]
    for why, request, want in (
            ("both", post(length + te, chunks), 400), ("both, turned", post(te + length, chunks), 400),
            ("two lengths", post(length + b"Content-Length: 3\r\n"), 400), ("the same length twice", post(length + length), 400),
            ("a list of lengths", post(b"Content-Length: 16, 16\r\n"), 400), ("a sign", post(b"Content-Length: +16\r\n"), 400),
            ("below 0", post(b"Content-Length: -1\r\n"), 400), ("hexadecimal", post(b"Content-Length: 0x10\r\n"), 400),
            ("no length", post(b"Content-Length: \r\n"), 400), ("too long a length", post(b"Content-Length: 99999999999999999999\r\n"), 413),
            ("another coding", post(b"Transfer-Encoding: gzip\r\n"), 501), ("two codings", post(b"Transfer-Encoding: gzip, chunked\r\n"), 501),
            ("twice chunked", post(te + te, chunks), 400), ("chunked in 1.0", post(te, chunks, b"POST /collections/c/search HTTP/1.0\r\n"), 400),
            ("a letter of another case", post(b"Transfer-Encoding: xchunked\r\n", chunks), 501),
            ("a continued line", post(b"X-A: b\r\n c\r\n" + length), 400), ("a continued line at first", post(b" X: y\r\n" + length), 400),
            ("a blank before the colon", post(b"Content-Length : 16\r\n"), 400), ("a tab before the colon", post(b"Content-Length\t: 16\r\n"), 400),
            ("no colon", post(b"Content-Length\r\n"), 400), ("no name", post(b": 5\r\n" + length), 400),
            ("LF alone", post(length).replace(b"\r\n", b"\n"), 400), ("LF alone once", post(length).replace(b"json\r\n", b"json\n"), 400),
            ("CR alone", post(length).replace(b"json\r\n", b"json\r"), 400), ("NUL in a header", post(b"X: a\0b\r\n" + length), 400),
            ("a control character", post(b"X: a\x07b\r\n" + length), 400), ("two Hosts", post(HOST + length), 400),
            ("no Host", b"GET /livez HTTP/1.1\r\n\r\n", 400), ("an odd Host", b"GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("two blanks", b"GET  /livez HTTP/1.1\r\n" + HOST + b"\r\n", 400), ("two blanks behind", b"GET /livez  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
            ("a blank at the end", b"GET /livez HTTP/1.1 \r\n" + HOST + b"\r\n", 400), ("a blank within", b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
            ("a tab", b"GET\t/livez HTTP/1.1\r\n" + HOST + b"\r\n", 400), ("NUL", b"GET /livez\0 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
            ("no version", b"GET /livez\r\n" + HOST + b"\r\n", 400), ("0.9", b"GET /livez HTTP/0.9\r\n" + HOST + b"\r\n", 505),
            ("2.0", b"GET /livez HTTP/2.0\r\n" + HOST + b"\r\n", 505), ("1.2", b"GET /livez HTTP/1.2\r\n" + HOST + b"\r\n", 505),
            ("http/1.1", b"GET /livez http/1.1\r\n" + HOST + b"\r\n", 400), ("an empty line", b"\r\nGET /livez HTTP/1.1\r\n" + HOST + b"\r\n", 400),
            ("an absolute target", b"GET http://localhost/livez HTTP/1.1\r\n" + HOST + b"\r\n", 400), ("*", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
            ("8-bit", b"GET /liv\xc3\xa9z HTTP/1.1\r\n" + HOST + b"\r\n", 400), ("a fragment", b"GET /livez#a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
            ("a bad chunk size", post(te, b"zz\r\n"), 400), ("a chunk extension", post(te, b"10;a=b\r\n" + SEARCH + b"\r\n0\r\n\r\n"), 400),
            ("a trailer", post(te, b"10\r\n" + SEARCH + b"\r\n0\r\nA: b\r\n\r\n"), 400), ("a huge chunk", post(te, b"fffffffffffffffff\r\n"), 400),
            ("a chunk that is longer", post(te, b"3\r\n" + SEARCH + b"\r\n0\r\n\r\n"), 400), ("an LF after a size", post(te, b"10\n" + SEARCH), 400),
            ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n\n\n", 400), ("a body in a coding", post(b"Content-Encoding: gzip\r\n" + length), 415),
            ("Expect", post(b"Expect: tea\r\n" + length), 417)):
        answer = m.raw(request)
        # What follows a request that is refused is no other request.
        assert status(answer) == [want], f"{why}: {answer[:300]!r}"
        assert b"Connection: close" in answer and b'"request_id"' in answer, why


def bodies_are_of_a_type_and_there_where_one_is_needed(m):
    expect(m.post("/collections/c/search"), 400, "body_missing")
    expect(m.post("/collections/c/search", b"", headers={"Content-Type": "application/json"}), 400, "body_missing")
    assert status(m.raw(post(b"Transfer-Encoding: chunked\r\nConnection: close\r\n", b"0\r\n\r\n"))) == [400]
    assert status(m.raw(b"POST /collections/c/search HTTP/1.1\r\n" + HOST + b"Content-Length: 16\r\n\r\n" + SEARCH)) == [415]
    expect(m.post("/collections/c/search", SEARCH, headers={"Content-Type": "text/plain"}), 415, "content_type")
    expect(m.post("/collections/c/scroll", b"x", headers={"Content-Type": "application/octet-stream"}), 415)
    expect(m.post("/collections/c/search", SEARCH, headers={"Content-Type": "Application/JSON ; charset=utf-8"}), 200)
    expect(m.ask("GET", "/livez", b"{}"), 400, "body")


def paths_methods_and_parameters_are_known_or_refused(m):
    expect(m.get("/none"), 404, "path")
    expect(m.get("/collections/c/nothing"), 404, "path")
    expect(m.get("/livez/"), 404, "path")
    assert expect(m.ask("DELETE", "/livez"), 405, "method").headers["Allow"] == "GET"
    assert expect(m.get("/collections/c/search"), 405).headers["Allow"] == "POST"
    assert expect(m.post("/collections/c"), 405).headers["Allow"] == "PUT, GET, PATCH, DELETE"
    expect(m.ask("BREW", "/livez"), 405)
    expect(m.get("/livez?a=1"), 400, "query", "a")
    expect(m.get("/collections/c/vectors/a?with_vector=true&with_vector=true"), 400, "query")
    expect(m.get("/collections/c/vectors/a?with_vector=maybe"), 400, "query", "with_vector")
    expect(m.get("/collections/c/vectors/a?with_vector=%zz"), 400, "query")
    expect(m.get("/collections/c/vectors/%00"), 400, "path")
    expect(m.get("/collections/c/vectors/%ff"), 400, "path")
    expect(m.get("/collections/c/vectors/%4"), 400, "path")
    expect(m.get("/collections/c/vectors/"), 400, "path")
    expect(m.get("/collections/a%2fb"), 400, "path")
    a = m.ask("HEAD", "/livez")
    assert a.status == 200 and a.body == b"" and int(a.headers["Content-Length"]) > 0
    assert expect(m.get("/livez", headers={"X-Request-Id": "my-id.1"}), 200).headers["X-Request-Id"] == "my-id.1"
    assert expect(m.get("/livez", headers={"X-Request-Id": "a b"}), 200).headers["X-Request-Id"] != "a b"
    assert "id=my-id.1 " in m.log() and "route=livez status=200" in m.log()


def what_is_too_long_is_refused(m):
    expect(m.get("/" + "a" * 9000), 414)
    assert status(m.raw(b"GET /" + b"a" * 20000)) == [414], "the end of the line is not waited for"
    assert status(m.raw(b"GET /livez HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20000)) == [431]
    assert status(m.raw(b"GET /livez HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 70 + b"\r\n")) == [431]
    expect(m.post("/collections/c/search", b" " * (1 << 20) + SEARCH), 413, "too_large")
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    assert status(m.raw(post(b"Transfer-Encoding: chunked\r\n", b""), [post(b"Transfer-Encoding: chunked\r\n", chunk * 17)])) == [413]
    # A body of brackets takes many times its length as values: bodies_mib bounds that, too.
    before = m.memory_kib()
    expect(m.post("/collections/c/search", b'{"filter":[' + b"[],[]," * 170000 + b"[]]}"), 503, "busy")
    assert m.memory_kib() < before + 40 * 1024, (before, m.memory_kib())
    m_ = m.post("/collections/c/upsert", {"points": [{"id": f"big{i}", "vector": [i, 1], "metadata": {"t": "x" * 30000}} for i in range(30)]})
    expect(m_, 200)
    expect(m.post("/collections/c/upsert", {"points": [{"id": f"bigger{i}", "vector": [i, 1], "metadata": {"t": "x" * 30000}} for i in range(30)]}), 200)
    expect(m.post("/collections/c/scroll", {"with_payload": True, "limit": 256}), 422, "answer_too_large")
    expect(m.post("/collections/c/search", {"vector": [1, 1], "top_k": 300}), 422, "answer_too_large")


def connections_are_kept_and_requests_pipelined(m):
    c = m.connect()
    for _ in range(5):
        expect(m.post("/collections/c/search", SEARCH, connection=c), 200)
        expect(m.post("/collections/c/search", b"{}", connection=c), 422)
    c.close()
    one = b"POST /collections/c/search HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 16\r\n\r\n" + SEARCH
    last = b"GET /livez HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    assert status(m.raw(one * 7 + last)) == [200] * 8
    assert status(m.raw(b"GET /livez HTTP/1.0\r\n\r\n")) == [200]
    assert b"Connection: keep-alive" in m.raw(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + last)
    # Byte by byte, and with the end of the connection behind it.
    assert status(m.raw(None, [bytes([b]) for b in one + last])) == [200, 200]
    assert status(m.raw(one, half_close=True)) == [200]
    # All that came before the end is answered, and one that is queued for a moment is no one that waits for an epoch.
    for _ in range(20):
        assert status(m.raw(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n" + one * 3, half_close=True)) == [200] * 4
    assert status(m.raw((b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n") * 50, half_close=True)) == [200] * 50
    assert status(m.raw(one + b"GET /li", half_close=True)) == [200]
    big = b'{"vector":[1,0],"filter":"' + b" " * 300000 + b'n = 1"}'
    answer = m.raw(None, [b"POST /collections/c/search HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nExpect: 100-continue\r\n"
                          b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(big), big])
    assert status(answer) in ([100, 200], [200], [100, 422], [422]), answer[:300]


def slow_senders_have_one_deadline(m):
    before = m.metric("kith_gateway_events_total", kind="slow_sender")
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", m.port), timeout=20) as s:
        s.settimeout(0.05)
        data = b""
        s.sendall(b"POST /collections/c/search HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        while time.monotonic() - began < 20 + PATIENCE:  # a byte now and then does not put it off
            try:
                s.sendall(b" ")
                data += s.recv(4096)
                if data:
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        s.settimeout(20)
        data += read_all(s)
    assert status(data) == [408], data
    assert 2.5 < time.monotonic() - began < 15 + PATIENCE
    assert m.metric("kith_gateway_events_total", kind="slow_sender") == before + 1
    assert status(m.raw(b"GET /livez HT")) == [408]
    answer = m.raw(b"HEAD /livez HTTP/1.1\r\n" + HOST + b"\r\nGET /livez HT")
    assert status(answer) == [200, 408] and b'"code":"too_slow"' in answer, "only the answer of HEAD has no body"


def half_requests_take_no_place_and_running_ones_have_a_limit(m):
    # 20 half requests are no running ones: requests = 4.
    half = []
    for _ in range(20):
        s = socket.create_connection(("127.0.0.1", m.port), timeout=20)
        s.sendall(post(b"Content-Length: 16\r\n", b"{"))
        half.append(s)
    expect(m.post("/collections/c/search", SEARCH), 200)
    for s in half:
        s.close()
    # Four that wait for an epoch are; the fifth is told to come again, and what is carried out at once is not one.
    waiting = []
    for _ in range(4):
        c = m.connect()
        c.request("POST", "/collections/c/search", b'{"vector":[1,0],"min_epoch":1000000}', {"Content-Type": "application/json"})
        waiting.append(c)
    wait_until("a request is turned away", lambda: m.post("/collections/c/search", SEARCH).status == 429)
    expect(m.post("/collections/c/search", SEARCH), 429, "too_many_requests")
    expect(m.get("/livez"), 200)
    for c in waiting:
        c.close()
    wait_until("there is room again", lambda: m.post("/collections/c/search", SEARCH).status == 200)


def a_flood_of_connections_holds_memory_flat(m):
    expect(m.get("/livez"), 200)
    before = m.memory_kib()
    sockets = []
    for i in range(300):  # connections = 64
        s = socket.create_connection(("127.0.0.1", m.port), timeout=20)
        try:
            s.sendall(post(b"Content-Length: 1000000\r\n", b" " * 2000) if i % 2 else b"GET /li")
        except OSError:
            pass
        sockets.append(s)
    for s in sockets:
        s.close()
    expect(wait_until("it answers", lambda: (a := m.get("/livez")).status == 200 and a), 200)
    wait_until("connections are gone", lambda: m.metric("kith_gateway_connections") <= 2)
    assert m.metric("kith_gateway_body_memory_bytes") == 0
    assert m.memory_kib() < before + 16384, (before, m.memory_kib())


def many_clients_at_a_time_are_served(m):
    failed = []

    def client():
        c = m.connect()
        for _ in range(30):
            a = m.post("/collections/c/search", SEARCH, connection=c)
            if a.status not in (200, 429):
                failed.append(a)
        c.close()
    threads = [threading.Thread(target=client) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed[0]


def set_up(m):
    m.start_kithd()
    m.start_gateway(config="body_mib = 1\nbodies_mib = 16\nanswer_mib = 1\nreceive_ms = 3000\nrequests = 4\nconnections = 64\n")
    m.writable()
    expect(m.ask("PUT", "/collections/c", {"dim": 2, "metric": "l2"}), 201)
    expect(m.post("/collections/c/upsert", {"points": [{"id": "a", "vector": [1, 0], "metadata": {"n": 1}}]}), 200)


main([requests_that_two_readers_could_understand_in_two_ways_are_refused, bodies_are_of_a_type_and_there_where_one_is_needed,
      paths_methods_and_parameters_are_known_or_refused, connections_are_kept_and_requests_pipelined, slow_senders_have_one_deadline,
      half_requests_take_no_place_and_running_ones_have_a_limit, many_clients_at_a_time_are_served,
      a_flood_of_connections_holds_memory_flat, what_is_too_long_is_refused], set_up)
