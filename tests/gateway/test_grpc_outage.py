"""kithd is killed under calls of gRPC and comes back; keys; one port for both; a stop."""
import signal
import threading
import time

import grpc

import grpc_support as g
from grpc_support import Frames, GOAWAY, expect_code, pb, stub
from support import PATIENCE, SLOWNESS, main, wait_until

Code = grpc.StatusCode
READ, WRITE = "read-key-0123456789", "write-key-0123456789"


def set_up(m):
    m.start_kithd()
    m.start_gateway(config="drain_ms = 20000\n")
    m.writable()
    stub(m).CreateCollection(pb.CreateCollectionRequest(collection="c", dim=2, metric=pb.METRIC_L2), timeout=PATIENCE)
    stub(m).Upsert(pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id="a", vector=[0, 0])]), timeout=PATIENCE)


def put(key="x"):
    return pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id=key, vector=[1, 2])])


FIND = pb.SearchRequest(collection="c", vector=[0, 0])


def searches_go_on_and_writes_are_unavailable_while_kithd_is_away(m):
    s, ending, codes, found, done = stub(m), [], [], [], []
    def search():
        while not ending:
            found.append(len(s.Search(FIND, timeout=PATIENCE).results))
    def write():
        while not ending:
            try:
                s.Upsert(put(f"w{len(codes)}"), timeout=PATIENCE)
                done.append(f"w{len(codes)}")
                codes.append(Code.OK)
            except grpc.RpcError as e:
                codes.append(e.code())
    threads = [threading.Thread(target=search), threading.Thread(target=write)]
    for t in threads:
        t.start()
    try:
        wait_until("writes are applied", lambda: codes.count(Code.OK) > 10)
        m.kithd.kill()
        m.kithd.wait()
        wait_until("writes are unavailable", lambda: codes.count(Code.UNAVAILABLE) > 10)
        n = len(found)
        wait_until("searches go on", lambda: len(found) > n + 20)
        expect_code(Code.UNAVAILABLE, s.CreateCollection, pb.CreateCollectionRequest(collection="d", dim=2, metric=pb.METRIC_L2))
        # A stream says how far it came.
        e = expect_code(Code.UNAVAILABLE, lambda it, **more: list(s.UpsertStream(it, **more)), iter([put()]), where="0 messages")
        assert dict(e.trailing_metadata())["kith-outcome"] == "nothing_done"
        m.start_kithd()
        n = codes.count(Code.OK)
        wait_until("writes are applied again", lambda: codes.count(Code.OK) > n + 10, PATIENCE * 2)
    finally:
        ending.append(True)
        for t in threads:
            t.join()
    assert 0 not in found and set(codes) <= {Code.OK, Code.UNAVAILABLE, Code.UNKNOWN}, set(codes)
    for key in done:
        s.Get(pb.GetRequest(collection="c", id=key), timeout=PATIENCE)


def one_port_speaks_both(m):
    m.stop_gateway()
    m.start_gateway("--grpc-port", "same")
    assert m.port == m.grpc_port
    m.writable()
    assert stub(m).Search(FIND, timeout=PATIENCE).results
    assert m.post("/collections/c/search", {"vector": [0, 0]}).status == 200
    # Byte by byte, so that the preface comes in pieces.
    import socket
    with socket.create_connection(("127.0.0.1", m.port), timeout=PATIENCE) as s:
        for b in g.PREFACE + g.frame(g.SETTINGS, 0, 0):
            s.sendall(bytes((b,)))
        assert s.recv(9)[3] == g.SETTINGS
    assert m.raw(b"PRX / HTTP/1.1\r\nHost: localhost\r\n\r\n", half_close=True).startswith(b"HTTP/1.1 4")
    m.stop_gateway()
    m.start_gateway("--grpc-port", "off")
    assert m.grpc_port == 0
    assert m.raw(g.PREFACE).startswith(b"HTTP/1.1 ")


def keys_are_wanted_and_checked(m):
    with open(m.path("keys"), "w", encoding="ascii") as f:
        f.write(f"reader read c {READ}\nwriter write * {WRITE}\n")
    import os
    os.chmod(m.path("keys"), 0o600)
    m.stop_gateway()
    m.start_gateway("--keys", m.path("keys"))
    s = stub(m)
    bearer = lambda key: [("authorization", f"Bearer {key}")]
    expect_code(Code.UNAUTHENTICATED, s.Search, FIND)
    expect_code(Code.UNAUTHENTICATED, s.Search, FIND, metadata=bearer("not-a-key-that-there-is"))
    expect_code(Code.RESOURCE_EXHAUSTED, s.Search, FIND, metadata=bearer("x" * 5000))
    wait_until("kithd is there", lambda: s.Search(FIND, metadata=bearer(READ)).results)
    assert s.Search(FIND, metadata=[("x-api-key", READ)]).results
    expect_code(Code.PERMISSION_DENIED, s.Upsert, put(), metadata=bearer(READ))
    expect_code(Code.PERMISSION_DENIED, s.Search, pb.SearchRequest(collection="other", vector=[0]), metadata=bearer(READ))
    s.Upsert(put(), metadata=bearer(WRITE))
    assert list(s.ListCollections(pb.ListCollectionsRequest(), metadata=bearer(READ)).collections) == ["c"]
    health = g.health_pb2_grpc.HealthStub(g.channel(m))
    assert health.Check(g.health_pb2.HealthCheckRequest()).status == 1
    assert f"key=reader method=GRPC" in m.log() and READ not in m.log()
    # A stream is its key's from beginning to end.
    expect_code(Code.PERMISSION_DENIED, lambda it, **more: list(s.UpsertStream(it, **more)), iter([put(), put()]), metadata=bearer(READ))
    assert len(list(s.UpsertStream(iter([put(), put()]), metadata=bearer(WRITE)))) == 2
    m.stop_gateway()
    m.start_gateway()
    # Without keys: nobody's page in a browser, and no other name of the loopback address.
    expect_code(Code.PERMISSION_DENIED, stub(m).Search, FIND, metadata=[("origin", "http://evil.example")])


def a_stop_is_told_and_what_is_under_way_is_finished(m):
    s = stub(m)
    health = g.health_pb2_grpc.HealthStub(g.channel(m))
    watch = health.Watch(g.health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert next(watch).status == 1
    epoch = s.Upsert(put(), timeout=PATIENCE).epoch
    waits = s.Search.future(pb.SearchRequest(collection="c", vector=[0, 0], min_epoch=epoch + 1), timeout=PATIENCE)
    wait_until("it waits", lambda: m.metric("kith_gateway_waiting_for_epoch") == 1)
    frames = Frames(m)
    frames.call(1, "/vectordb.VectorSearch/Search", g.message(pb.SearchRequest(collection="c", vector=[0, 0], min_epoch=epoch + 1).SerializeToString()))
    go = threading.Event()
    def loading():
        yield put()
        go.wait(PATIENCE)
    loads = s.UpsertStream(loading(), timeout=PATIENCE)
    assert next(loads).messages == 1
    waits2 = m.metric("kith_epoch", collection="c")
    wait_until("both wait", lambda: m.metric("kith_gateway_waiting_for_epoch") in (0, 2))
    m.gateway.send_signal(signal.SIGTERM)
    assert next(watch).status == 2, "NOT_SERVING comes before the end"
    try:
        next(watch)
        raise AssertionError("Watch goes on")
    except grpc.RpcError as e:
        assert e.code() == Code.UNAVAILABLE
    # The stream that loads is told, and how far it came; what waits is answered, as its epoch has come by the stream's write.
    last = next(loads)
    assert last.messages == 1 and last.pace == pb.PACE_STOPPING, last
    try:
        next(loads)
        raise AssertionError("the stream goes on")
    except grpc.RpcError as e:
        assert e.code() == Code.UNAVAILABLE and "1 messages" in e.details(), e
    go.set()
    assert waits.result().results
    got = frames.until(GOAWAY)
    assert got and got[3][4:8] == b"\0\0\0\0", got
    second = frames.until(GOAWAY)
    assert second and int.from_bytes(second[3][:4], "big") == 1, second
    assert frames.next() is None
    assert m.gateway.wait(PATIENCE) == 0
    m.start_gateway()


if __name__ == "__main__":
    main([searches_go_on_and_writes_are_unavailable_while_kithd_is_away, one_port_speaks_both, keys_are_wanted_and_checked,
          a_stop_is_told_and_what_is_under_way_is_finished], set_up)
