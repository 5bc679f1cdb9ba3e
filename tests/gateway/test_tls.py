"""TLS: what is agreed on and what is refused, certificates of clients, new keys and certificates while it runs, and how connections end."""
import http.client
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import time

from certificates import install, make, openssl
from support import PATIENCE, SLOWNESS, Answer, expect, floats, main, read_all, wait_until

KEY = "k" * 32
SHAKE_MS = int(3000 * SLOWNESS)
SHAKES = 20
CONFIG = f"tls_port = 0\nhandshake_ms = {SHAKE_MS}\nhandshakes = {SHAKES}\nconnections = 400\n"
IDLE_MS = int(1000 * SLOWNESS)


def start(m, *options, idle_ms=600000, more=""):
    if m.gateway:
        m.stop_gateway()
    before = len(m.log()) if os.path.exists(m.path("gateway.log")) else 0
    m.start_gateway("--tls-cert", m.path("live.pem"), "--tls-key", m.path("live.key"), *options, config=CONFIG + f"idle_ms = {idle_ms}\n" + more)
    m.tls_port = int(wait_until("it listens for TLS", lambda: re.search(r"event=listening-tls .*port=(\d+)", m.log()[before:]))[1])


def context(m, client=None, alpn=None, ca="ca"):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(m.path(ca + ".pem"))
    if client:
        c.load_cert_chain(m.path(client + ".pem"), m.path(client + ".key"))
    if alpn:
        c.set_alpn_protocols(alpn)
    return c


def connect(m, c=None):
    s = (c or context(m)).wrap_socket(socket.create_connection(("127.0.0.1", m.tls_port), timeout=PATIENCE), server_hostname="localhost",
                                      suppress_ragged_eofs=False)
    return s


def ask(m, method, path, body=None, headers=None, c=None):
    connection = http.client.HTTPSConnection("127.0.0.1", m.tls_port, context=c or context(m), timeout=PATIENCE)
    try:
        return m.ask(method, path, body, headers, connection=connection)
    finally:
        connection.close()


def request(path, more="", method="GET", body=b""):
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode() + body


def one_answer(s):
    r = http.client.HTTPResponse(s)
    r.begin()
    return Answer(r.status, r.headers, r.read())


def refused(do):
    """What a client sees of a handshake that is refused, at its first use with TLS 1.3."""
    try:
        s = do()
        s.sendall(request("/livez"))
        data = s.recv(100)
    except (ssl.SSLError, ConnectionError) as e:
        return str(e)
    raise AssertionError(f"it was let in: {data!r}")


def failures(m):
    return m.metric("kith_gateway_events_total", kind="handshake_failed")


def versions_ciphers_and_protocols(m):
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        c = context(m)
        c.minimum_version = c.maximum_version = version
        with connect(m, c) as s:
            assert s.version() == name and s.compression() is None and s.selected_alpn_protocol() is None
            assert "GCM" in s.cipher()[0] or "CHACHA" in s.cipher()[0], s.cipher()
            s.sendall(request("/livez"))
            expect(one_answer(s), 200)
            session = s.session
        with c.wrap_socket(socket.create_connection(("127.0.0.1", m.tls_port)), server_hostname="localhost", session=session) as s:
            assert not s.session_reused
    before = failures(m)
    for old in (["-tls1"], ["-tls1_1"], ["-tls1_2", "-cipher", "AES256-SHA:AES256-GCM-SHA384"], ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA"]):
        r = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{m.tls_port}", *old, *([] if "-cipher" in old else ["-cipher", "ALL:@SECLEVEL=0"])],
                           input=b"", capture_output=True, timeout=PATIENCE, check=False)
        assert b"alert" in r.stderr and b"Cipher is (NONE)" in r.stdout, r
    with connect(m, context(m, alpn=["http/1.1"])) as s:
        assert s.selected_alpn_protocol() == "http/1.1"
    with connect(m, context(m, alpn=["spdy/3", "http/1.1"])) as s:
        assert s.selected_alpn_protocol() == "http/1.1"
    assert "NO_APPLICATION_PROTOCOL" in refused(lambda: connect(m, context(m, alpn=["spdy/3"]))).upper().replace(" ", "_")
    assert wait_until("they are counted", lambda: failures(m) == before + 5)
    assert m.metric("kith_gateway_tls_handshakes_total") >= 4
    assert time.time() + 86400 * 20 < m.metric("kith_gateway_tls_certificate_end_seconds") < time.time() + 86400 * 31


def nobody_negotiates_anew(m):
    with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{m.tls_port}", "-tls1_2", "-CAfile", m.path("ca.pem")], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
        said = b""
        while b"---\nSSL-Session" not in said and b"Verify return code" not in said:
            piece = os.read(p.stdout.fileno(), 4096)
            assert piece, said
            said += piece
        p.stdin.write(b"R\n")
        p.stdin.flush()
        said, _ = p.communicate(timeout=PATIENCE)
        assert b"no renegotiation" in said, said
    expect(ask(m, "GET", "/livez"), 200)


def calls_are_the_same_through_it(m):
    expect(ask(m, "PUT", "/collections/big", {"dim": 256, "metric": "l2"}), 201)
    points = [{"id": f"p{i}", "vector": [float(i + k) for k in range(256)]} for i in range(1000)]
    expect(ask(m, "POST", "/collections/big/upsert", {"points": points}), 200)
    query = floats(*(float(700 + k) for k in range(256)))
    octets = {"Content-Type": "application/octet-stream"}
    a, b = (f("POST", "/collections/big/search?top_k=5", query, octets).json for f in (m.ask, lambda *w: ask(m, *w)))
    assert a["results"] == b["results"] and a["results"][0]["id"] == "p700"
    page = {"limit": 1000, "with_vector": True}
    plain, through = m.post("/collections/big/scroll", page), ask(m, "POST", "/collections/big/scroll", page)
    assert plain.json["points"] == through.json["points"] and len(through.body) > 1 << 20
    # Several requests in one record, one in many records, a body of many records, and one that is not read.
    with connect(m) as s:
        s.sendall(request("/livez") * 40)
        for _ in range(40):
            expect(one_answer(s), 200)
        for byte in request("/livez", "X-Long: " + "x" * 200 + "\r\n"):
            s.sendall(bytes([byte]))
        expect(one_answer(s), 200)
        body = b'{"vector":[' + b",".join(b"%d.0000000000000000000000000000000000000000000" % (700 + k) for k in range(256)) + b"]" + b" " * (2 << 20) + b"}"
        s.sendall(request("/collections/big/search", f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n", "POST", body)
                  + request("/livez"))
        assert expect(one_answer(s), 200).json["results"][0]["id"] == "p700"
        expect(one_answer(s), 200)
        s.sendall(request("/collections/big/search", "Content-Type: application/json\r\nContent-Length: 500\r\nExpect: 100-continue\r\n", "POST"))
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b'{"vector":[1]}'.ljust(500))
        expect(one_answer(s), 422, "dimension")


def slow_readers_get_all_of_it(m):
    wanted = m.post("/collections/big/scroll", {"limit": 1000, "with_vector": True}).json["points"]
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(PATIENCE)
    raw.connect(("127.0.0.1", m.tls_port))
    with context(m).wrap_socket(raw, server_hostname="localhost") as s:
        body = b'{"limit":1000,"with_vector":true}'
        s.sendall(request("/collections/big/scroll", f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n", "POST", body))
        assert expect(one_answer(s), 200).json["points"] == wanted


def connections_end_with_close_notify(m):
    with connect(m) as s:  # a client that has no more to say is answered, and is told when that is all
        s.sendall(request("/collections", "Connection: close\r\n"))
        data = b""
        while piece := s.recv(4096):  # an end without close_notify is an SSLEOFError
            data += piece
        assert data.startswith(b"HTTP/1.1 200") and b"Connection: close" in data
    # close_notify of the client before the answer: the half of it that TLS knows of.
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(m).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", m.tls_port), timeout=PATIENCE) as raw:
        def pump(do):
            while True:
                try:
                    return do()
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    piece = raw.recv(65536)
                    incoming.write(piece) if piece else incoming.write_eof()
        pump(tls.do_handshake)
        tls.write(request("/livez"))
        try:
            tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        raw.sendall(outgoing.read())
        raw.shutdown(socket.SHUT_WR)
        assert len(read_all(raw)) > 200, "no answer after close_notify"


def connections_that_rest_end_with_it_too(m):
    start(m, idle_ms=IDLE_MS)
    with connect(m) as used, connect(m) as unused:
        used.sendall(request("/livez"))
        expect(one_answer(used), 200)
        assert used.recv(1) == b"" and unused.recv(1) == b""


def hostile_handshakes_end(m):
    """Each is closed, counted, and keeps nobody from being served."""
    def hello():
        c = context(m)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        t = c.wrap_bio(incoming, outgoing, server_hostname="localhost")
        try:
            t.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return outgoing.read()
    first = hello()
    before, crowded = failures(m), m.metric("kith_gateway_events_total", kind="crowded")
    garbage = [b"\x00" * 5000, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"a" * 70000, first[:50] + b"\xff" * 400, b"\x15\x03\x01\x00\x02\x02\x28",
               b"\x80\x2e\x01\x00\x02" + b"\x00" * 60, first + first, first + b"\x17\x03\x03\x00\x10" + b"x" * 16, first[:-1] + b"\x00" * 500,
               first + b"\x14\x03\x03\x00\x01\x01" * 200]
    for data in garbage:
        with socket.create_connection(("127.0.0.1", m.tls_port), timeout=PATIENCE) as s:
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            read_all(s)
    for cut in (0, 1, 5, 60, len(first) - 1):  # ends in the middle
        with socket.create_connection(("127.0.0.1", m.tls_port), timeout=PATIENCE) as s:
            s.sendall(first[:cut])
            s.shutdown(socket.SHUT_WR)
            read_all(s)
    wait_until("they are counted", lambda: failures(m) == before + len(garbage) + 5)
    assert "event=handshake-failed" in m.log()
    # Reset by the client in the middle.
    with socket.create_connection(("127.0.0.1", m.tls_port), timeout=PATIENCE) as s:
        s.sendall(first)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until("it is counted", lambda: failures(m) == before + len(garbage) + 6)
    memory = m.memory_kib()
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", m.tls_port), timeout=PATIENCE) as s:
            s.sendall(first)
    # More at a time than handshakes may be are turned away.
    wait_until("they are counted", lambda: failures(m) + m.metric("kith_gateway_events_total", kind="crowded") == before + crowded + len(garbage) + 306)
    assert m.memory_kib() < memory + 20 * 1024
    assert m.log().count("event=handshake-failed") < 200, "a line for each of very many"


def slow_handshakes_are_few_and_end(m):
    with connect(m) as served:
        crowded = m.metric("kith_gateway_events_total", kind="crowded")
        began = time.monotonic()
        slow = [socket.create_connection(("127.0.0.1", m.tls_port), timeout=PATIENCE) for _ in range(SHAKES)]
        for s in slow:
            s.sendall(b"\x16")
        wait_until("all of them are accepted", lambda: m.metric("kith_gateway_connections") >= SHAKES + 1)
        refused(lambda: connect(m))
        assert m.metric("kith_gateway_events_total", kind="crowded") == crowded + 1
        served.sendall(request("/livez"))
        expect(one_answer(served), 200)
        for s in slow:
            assert read_all(s) == b""
            s.close()
        assert time.monotonic() - began >= SHAKE_MS / 1000 * 0.9
        expect(ask(m, "GET", "/livez"), 200)
    assert "handshake_ms" in m.log()


def many_connections_at_once(m):
    c = context(m)
    body = b'{"like":"p7","top_k":3}'
    pool = []
    for _ in range(100):
        pool.append(connect(m, c))
    for s in pool:
        s.sendall(request("/collections/big/search", f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n", "POST", body))
    for s in pool:
        assert len(expect(one_answer(s), 200).json["results"]) == 3
        s.close()


def new_certificates_and_keys_are_taken(m):
    with open(m.path("keys"), "w", encoding="ascii") as f:
        f.write(f"one write * {KEY}\n")
    os.chmod(m.path("keys"), 0o600)
    start(m, "--keys", m.path("keys"), more=f"request_ms = {int(3000 * SLOWNESS)}\n")
    by = {"Authorization": "Bearer " + KEY}

    def hup(*events):
        before = len(m.log())
        m.gateway.send_signal(signal.SIGHUP)
        for event in events:
            wait_until(event, lambda e=event: "event=" + e in m.log()[before:])
        return m.log()[before:]

    def serial():
        with connect(m) as s:
            return s.getpeercert()["serialNumber"]
    kept = connect(m)
    old = serial()
    body = b'{"vector":[' + b"1," * 255 + b"1]}"
    under_way = connect(m)
    under_way.sendall(request("/collections/big/search", f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                              "Expect: 100-continue\r\n", "POST"))
    assert b"100 Continue" in under_way.recv(100)  # its key was looked at before the file changes
    install(m, "server2")
    hup("certificate-reloaded", "keys-reloaded")
    new = serial()
    assert new != old and kept.getpeercert()["serialNumber"] == old
    kept.sendall(request("/collections", f"Authorization: Bearer {KEY}\r\n"))
    expect(one_answer(kept), 200)
    # Bad ones are refused one by one, and what was there goes on.
    count = 0
    for name, why in (("other", "does not belong"), ("over", "is over")):
        install(m, name)
        if name == "other":
            with open(m.path("server.pem"), "rb") as a, open(m.path("live.pem"), "wb") as b:
                b.write(a.read())
        said = hup("certificate-kept", "keys-reloaded")
        assert why in said, said
        count += 1
    install(m, "server")
    os.chmod(m.path("live.key"), 0o604)
    assert "chmod" in hup("certificate-kept")
    os.remove(m.path("live.pem"))
    hup("certificate-kept")
    with open(m.path("keys"), "w", encoding="ascii") as f:
        f.write("one write *\n")
    hup("keys-kept")
    assert serial() == new
    expect(ask(m, "GET", "/collections", headers=by), 200)
    # One that is given up after its key has gone still has a name in the log.
    waiting = connect(m)
    wants = b'{"like":"p7","min_epoch":1000000}'
    waiting.sendall(request("/collections/big/search", f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(wants)}\r\n",
                            "POST", wants))
    wait_until("it waits", lambda: b"kith_gateway_waiting_for_epoch 1\n" in ask(m, "GET", "/metrics", headers=by).body)
    second = "s" * 32
    with open(m.path("keys"), "w", encoding="ascii") as f:
        f.write(f"two read * {second}\n")
    install(m, "server")
    hup("certificate-reloaded", "keys-reloaded")
    assert serial() == old
    expect(ask(m, "GET", "/collections", headers=by), 401, "key")
    expect(ask(m, "GET", "/collections", headers={"X-API-Key": second}), 200)
    under_way.sendall(body)
    expect(one_answer(under_way), 200)
    kept.sendall(request("/collections", f"Authorization: Bearer {KEY}\r\n"))
    expect(one_answer(kept), 401, "key")
    expect(one_answer(waiting), 504, "epoch_not_visible")
    assert re.search(r"key=one .*status=504", m.log())
    read_all_metrics = ask(m, "GET", "/metrics", headers={"X-API-Key": second}).body.decode()
    refusals = float(re.search(r'kith_gateway_events_total\{kind="reload_refused"\} (\d+)', read_all_metrics)[1])
    assert refusals == count + 4, refusals  # the last with both
    kept.close()
    waiting.close()
    under_way.close()


def certificates_of_clients(m):
    with open(m.path("keys"), "w", encoding="ascii") as f:
        f.write(f"one write * {KEY}\nreader read big cert:reader.example.org\n")
    os.chmod(m.path("keys"), 0o600)
    start(m, "--keys", m.path("keys"), "--tls-client-ca", m.path("ca.pem"))
    search = {"like": "p7", "top_k": 3}
    for client, why in ((None, "CERTIFICATE_REQUIRED"), ("stranger", "UNKNOWN_CA"), ("lapsed", "EXPIRED"), ("wrongkind", "")):
        said = refused(lambda c=client: connect(m, context(m, client=c)))
        assert why in said.upper().replace(" ", "_") or "reset" in said or "EOF" in said, (client, said)
    assert "certificate has expired" in m.log()
    reader, nobody = context(m, "reader"), context(m, "nobody")
    expect(ask(m, "POST", "/collections/big/search", search, c=reader), 200)
    assert "key=reader " in m.log()
    expect(ask(m, "DELETE", "/collections/big", c=reader), 403, "rights")
    expect(ask(m, "GET", "/metrics", c=reader), 403, "rights")
    expect(ask(m, "POST", "/collections/big/search", search, c=nobody), 401, "key")
    expect(ask(m, "POST", "/collections/big/search", search, {"X-API-Key": KEY}, c=nobody), 200)
    expect(ask(m, "GET", "/metrics", headers={"X-API-Key": KEY}, c=reader), 200)  # a key goes before the certificate,
    expect(ask(m, "POST", "/collections/big/search", search, {"X-API-Key": "w" * 32}, c=reader), 401, "key")  # also a wrong one
    # The name of a certificate is no key.
    for key in ("reader.example.org", "cert:reader.example.org"):
        expect(ask(m, "POST", "/collections/big/search", search, {"X-API-Key": key}, c=nobody), 401, "key")
        expect(m.post("/collections/big/search", search, headers={"X-API-Key": key}), 401, "key")


def a_stop_lets_answers_end(m):
    start(m)
    epoch = ask(m, "GET", "/collections/big/stats").json["epoch"]
    body = b'{"like":"p7","min_epoch":%d}' % (epoch + 1)
    idle, waiting, shaking = connect(m), connect(m), socket.create_connection(("127.0.0.1", m.tls_port), timeout=PATIENCE)
    shaking.sendall(b"\x16")
    waiting.sendall(request("/collections/big/search", f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n", "POST", body))
    wait_until("it waits", lambda: m.metric("kith_gateway_waiting_for_epoch") == 1)
    m.gateway.send_signal(signal.SIGTERM)
    assert idle.recv(1) == b"" and read_all(shaking) == b""
    subprocess.run([os.environ["KITH_TEST_KITH"], "--run", m.run, "put", "big", "x", "--vector", str([0.5] * 256)], check=True, capture_output=True,
                   timeout=PATIENCE)
    expect(one_answer(waiting), 200)
    assert waiting.recv(1) == b""
    waiting.close()
    assert m.gateway.wait(PATIENCE) == 0
    m.gateway = None


def bad_options_are_told(m):
    def run(*options):
        return subprocess.run([os.environ["KITH_TEST_GATEWAY"], "--run", m.run, "--port", "0", *options], capture_output=True, text=True,
                              timeout=PATIENCE, check=False)
    openssl("pkey", "-in", m.path("server.key"), "-aes128", "-passout", "pass:secret", "-out", m.path("locked.key"))
    openssl("req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", m.path("weak.key"), "-out", m.path("weak.pem"), "-subj", "/CN=localhost")
    with open(m.path("server.key"), "rb") as a, open(m.path("open.key"), "wb") as b:
        b.write(a.read())
    for name, mode in (("locked", 0o600), ("weak", 0o600), ("open", 0o644)):
        os.chmod(m.path(name + ".key"), mode)
    cert, key = m.path("server.pem"), m.path("server.key")
    for options, status, text in (
            (["--tls-cert", cert], 2, "go together"), (["--tls-key", key], 2, "go together"), (["--tls-client-ca", m.path("ca.pem")], 2, "--tls-cert"),
            (["--tls-cert", cert, "--tls-key", key, "--tls-port", "99999"], 2, "--tls-port"),
            (["--tls-cert", cert, "--tls-key", key, "--tls-listen", "0.0.0.0"], 2, "--tls-client-ca FILE"),
            (["--tls-cert", m.path("none"), "--tls-key", key], 1, "none"), (["--tls-cert", key, "--tls-key", key], 1, "no certificate"),
            (["--tls-cert", cert, "--tls-key", cert], 1, "chmod" if os.stat(cert).st_mode & 7 else "no private key"),
            (["--tls-cert", cert, "--tls-key", m.path("other.key")], 1, "does not belong"), (["--tls-cert", cert, "--tls-key", m.path("open.key")], 1, "chmod"),
            (["--tls-cert", cert, "--tls-key", m.path("locked.key")], 1, "passphrase"), (["--tls-cert", m.path("weak.pem"), "--tls-key", m.path("weak.key")], 1, "weak.pem"),
            (["--tls-cert", cert, "--tls-key", m.path("")], 1, "no file"), (["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", key], 1, "no certificate")):
        r = run(*options)
        assert r.returncode == status and text in r.stderr, (options, r)


def set_up(m):
    make(m, "ca", "/CN=authority", more=["-addext", "basicConstraints=critical,CA:TRUE"])
    make(m, "otherca", "/CN=another", more=["-addext", "basicConstraints=critical,CA:TRUE"])
    for name in ("server", "server2", "other"):
        make(m, name, "/CN=localhost", "ca")
    make(m, "over", "/CN=localhost", "ca", days="-1")
    make(m, "reader", "/CN=reader.example.org", "ca", kind="clientAuth")
    make(m, "nobody", "/CN=nobody.example.org", "ca", kind="clientAuth")
    make(m, "stranger", "/CN=reader.example.org", "otherca", kind="clientAuth")
    make(m, "lapsed", "/CN=reader.example.org", "ca", days="-1", kind="clientAuth")
    make(m, "wrongkind", "/CN=reader.example.org", "ca")
    install(m, "server")
    m.start_kithd()
    start(m)
    m.writable()


main([versions_ciphers_and_protocols, nobody_negotiates_anew, calls_are_the_same_through_it, slow_readers_get_all_of_it,
      connections_end_with_close_notify, hostile_handshakes_end, slow_handshakes_are_few_and_end, many_connections_at_once, bad_options_are_told, connections_that_rest_end_with_it_too,
      new_certificates_and_keys_are_taken, certificates_of_clients, a_stop_lets_answers_end], set_up)
