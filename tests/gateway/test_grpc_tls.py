"""gRPC over TLS: by ALPN on the port of TLS, beside HTTP/1.1; rights by certificates; a stop."""
import os
import re
import signal
import ssl
import urllib.request

import grpc

from certificates import install, make
from grpc_support import OPTIONS, expect_code, pb, vectordb_pb2_grpc
from support import PATIENCE, floats, main, wait_until

Code = grpc.StatusCode
KEY = "k" * 32


def read(m, name):
    with open(m.path(name), "rb") as f:
        return f.read()


def stub(m, client=None):
    own = (read(m, client + ".key"), read(m, client + ".pem")) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(read(m, "ca.pem"), *own)
    return vectordb_pb2_grpc.VectorSearchStub(grpc.secure_channel(f"localhost:{m.tls_port}", credentials, options=OPTIONS))


def start(m, *options):
    if m.gateway:
        m.stop_gateway()
    before = len(m.log()) if os.path.exists(m.path("gateway.log")) else 0
    m.start_gateway("--tls-cert", m.path("live.pem"), "--tls-key", m.path("live.key"), "--tls-port", "0", *options)
    m.tls_port = int(wait_until("it listens for TLS", lambda: re.search(r"event=listening-tls .*port=(\d+)", m.log()[before:]))[1])


def calls_go_through_it(m):
    s = stub(m)
    s.CreateCollection(pb.CreateCollectionRequest(collection="c", dim=256, metric=pb.METRIC_L2), timeout=PATIENCE)
    points = [pb.VectorPoint(id=f"p{i}", vector_bytes=floats(*(float(i + k) for k in range(256)))) for i in range(1000)]
    assert s.Upsert(pb.UpsertRequest(collection="c", points=points), timeout=PATIENCE).upserted == 1000
    found = s.Search(pb.SearchRequest(collection="c", like="p7", top_k=1000, with_vector=True), timeout=PATIENCE)  # a megabyte
    assert len(found.results) == 999 and len(found.results[0].vector) == 256
    many = [s.Search.future(pb.SearchRequest(collection="c", like=f"p{i}", top_k=3), timeout=PATIENCE) for i in range(200)]
    assert all(len(call.result().results) == 3 for call in many)


def who_offers_both_gets_http_1(m):
    context = ssl.create_default_context(cafile=m.path("ca.pem"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with urllib.request.urlopen(f"https://localhost:{m.tls_port}/livez", context=context, timeout=PATIENCE) as answer:
        assert answer.status == 200


def certificates_have_rights(m):
    with open(m.path("keys"), "w", encoding="ascii") as f:
        f.write(f"one write * {KEY}\nreader read c cert:reader.example.org\n")
    os.chmod(m.path("keys"), 0o600)
    start(m, "--keys", m.path("keys"), "--tls-client-ca", m.path("ca.pem"))
    search, point = pb.SearchRequest(collection="c", like="p7"), pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id="x", vector=[1.0] * 256)])
    expect_code(Code.UNAVAILABLE, stub(m).Search, search)
    s = stub(m, "reader")
    assert s.Search(search, timeout=PATIENCE).results
    assert "key=reader method=GRPC" in m.log()
    expect_code(Code.PERMISSION_DENIED, s.Upsert, point)
    assert s.Upsert(point, timeout=PATIENCE, metadata=[("x-api-key", KEY)]).upserted == 1
    # New keys hold for calls that begin from now on, on connections that are open.
    with open(m.path("keys"), "w", encoding="ascii") as f:
        f.write(f"one write * {KEY}\n")
    m.gateway.send_signal(signal.SIGHUP)
    wait_until("they are read", lambda: "event=keys-reloaded" in m.log())
    expect_code(Code.UNAUTHENTICATED, s.Search, search)
    assert s.Search(search, timeout=PATIENCE, metadata=[("x-api-key", KEY)]).results


def without_grpc_there_is_no_h2(m):
    start(m, "--grpc-port", "off")
    expect_code(Code.UNAVAILABLE, stub(m).Search, pb.SearchRequest(collection="c", like="p7"))


def set_up(m):
    make(m, "ca", "/CN=authority", more=["-addext", "basicConstraints=critical,CA:TRUE"])
    make(m, "server", "/CN=localhost", "ca")
    make(m, "reader", "/CN=reader.example.org", "ca", kind="clientAuth")
    install(m, "server")
    m.start_kithd()
    start(m)
    m.writable()


main([calls_go_through_it, who_offers_both_gets_http_1, certificates_have_rights, without_grpc_there_is_no_h2], set_up)
