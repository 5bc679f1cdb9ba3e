"""Every call of vectordb.proto by a client of gRPC with stubs made of it, and how calls end."""
import json
import queue
import signal
import struct
import time

import grpc

import grpc_support as g
from grpc_support import expect_code, pb, stub
from support import PATIENCE, SLOWNESS, floats, main, wait_until

Code = grpc.StatusCode


def set_up(m):
    m.start_kithd()
    m.start_gateway(config="body_mib = 1\nbodies_mib = 64\nanswer_mib = 8\nbatch_max = 100\n")
    m.writable()
    s = stub(m)
    s.CreateCollection(pb.CreateCollectionRequest(collection="c", dim=2, metric=pb.METRIC_L2), timeout=PATIENCE)
    s.Upsert(pb.UpsertRequest(collection="c", points=[
        pb.VectorPoint(id="a", vector=[0, 0], metadata={"lang": "en", "kind": "x\n\"ü"}),
        pb.VectorPoint(id="b", vector=[1, 0], payload_json='{"lang":"de","n":420,"tags":["p","q"],"o":{"a":true}}'),
        pb.VectorPoint(id="c", vector_bytes=floats(3, 0))]), timeout=PATIENCE)


def searches_find_what_is_near(m):
    s = stub(m)
    a = s.Search(pb.SearchRequest(collection="c", vector=[0.1, 0], top_k=3))
    assert [(r.id, round(r.score, 3)) for r in a.results] == [("a", 0.01), ("b", 0.81), ("c", 8.41)], a
    assert a.results[0].metadata == {"lang": "en", "kind": "x\n\"ü"}
    assert a.results[1].metadata == {"lang": "de", "n": "420", "tags": '["p","q"]', "o": '{"a":true}'}
    assert not a.results[2].metadata and a.epoch and a.timeline and a.latency_us >= 0 and not a.partial
    rest = m.post("/collections/c/search", {"vector": [0.1, 0], "top_k": 3}).json
    assert [r["id"] for r in rest["results"]] == [r.id for r in a.results] and int(rest["timeline"]) == a.timeline
    same = s.Search(pb.SearchRequest(collection="c", vector_bytes=floats(0.1, 0), top_k=2, with_vector=True, payload=pb.PAYLOAD_JSON, exact=True))
    assert [r.id for r in same.results] == ["a", "b"] and list(same.results[1].vector) == [1, 0]
    assert json.loads(same.results[1].payload_json) == {"lang": "de", "n": 420, "tags": ["p", "q"], "o": {"a": True}}
    a = s.Search(pb.SearchRequest(collection="c", vector=[0, 0], filter={"lang": "de"}))
    assert [r.id for r in a.results] == ["b"], a
    a = s.Search(pb.SearchRequest(collection="c", vector=[0, 0], filter_expression="n > 3", filter={"lang": "de"}))
    assert [r.id for r in a.results] == ["b"], a
    assert not s.Search(pb.SearchRequest(collection="c", vector=[0, 0], filter_expression="n > 500", filter={"lang": "de"})).results
    a = s.Search(pb.SearchRequest(collection="c", like="a", payload=pb.PAYLOAD_NONE))
    assert [r.id for r in a.results] == ["b", "c"] and not a.results[0].metadata, a
    a = s.Search(pb.SearchRequest(collection="c", vector=[0, 0], payload_fields=["lang"]))
    assert a.results[1].metadata == {"lang": "de"}, a
    a = s.Search(pb.SearchRequest(collection="c", vector=[0, 0], score_threshold=1.0))
    assert [r.id for r in a.results] == ["a", "b"], a
    a = s.Search(pb.SearchRequest(collection="c", vector=[0, 0], score_threshold=0.0))
    assert [r.id for r in a.results] == ["a"], a
    assert s.Search(pb.SearchRequest(collection="c", vector=[0, 0], target_recall=0.9, top_k=1)).results[0].id == "a"
    assert s.Search(pb.SearchRequest(collection="c", vector=[0, 0], filter_expression='nowhere = "x"')).notice


def batches_are_answered_in_their_order(m):
    s = stub(m)
    a = s.BatchSearch(pb.BatchSearchRequest(collection="c", searches=[
        pb.SearchRequest(vector=[3, 0], top_k=1), pb.SearchRequest(collection="c", vector_bytes=floats(0, 0), top_k=1), pb.SearchRequest(like="b", top_k=1)]))
    assert [r.results[0].id for r in a.responses] == ["c", "a", "a"], a
    many = s.BatchSearch(pb.BatchSearchRequest(collection="c", searches=[pb.SearchRequest(vector=[3, 0])] * 100))
    assert len(many.responses) == 100
    expect_code(Code.INVALID_ARGUMENT, s.BatchSearch, pb.BatchSearchRequest(collection="c", searches=[pb.SearchRequest(vector=[3, 0])] * 101))
    expect_code(Code.INVALID_ARGUMENT, s.BatchSearch, pb.BatchSearchRequest(collection="c"))
    expect_code(Code.INVALID_ARGUMENT, s.BatchSearch, pb.BatchSearchRequest(collection="c", searches=[
        pb.SearchRequest(vector=[3, 0]), pb.SearchRequest(vector=[3, 0, 0])]), where="searches[1].vector")
    expect_code(Code.INVALID_ARGUMENT, s.BatchSearch, pb.BatchSearchRequest(collection="c", searches=[pb.SearchRequest(collection="d", vector=[3, 0])]))


def writes_are_read_by_their_epoch(m):
    s = stub(m)
    for wait in (pb.WAIT_DURABLE, pb.WAIT_APPLIED, pb.WAIT_NONE):
        w = s.Upsert(pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id="w", vector=[9, wait])], wait=wait))
        assert w.upserted == 1 and w.epoch and w.timeline
        r = s.Get(pb.GetRequest(collection="c", id="w", with_vector=True, min_epoch=w.epoch, timeline=w.timeline))
        assert list(r.point.vector) == [9, wait], r
    late = pb.SearchRequest(collection="c", vector=[0, 0], min_epoch=w.epoch + 1, timeline=w.timeline)
    found = s.Search.future(late, timeout=PATIENCE)
    s.Upsert(pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id="w", vector=[9, 9])]))
    assert found.result().epoch > w.epoch
    late.min_epoch += 1000
    expect_code(Code.DEADLINE_EXCEEDED, s.Search, late, timeout=0.2)
    late.deadline_ms = 50
    expect_code(Code.DEADLINE_EXCEEDED, s.Search, late, where="epoch")
    late.timeline += 1
    expect_code(Code.FAILED_PRECONDITION, s.Search, late)
    d = s.Delete(pb.DeleteRequest(collection="c", ids=["w", "nobody"]))
    assert d.deleted == 1 and d.epoch
    expect_code(Code.NOT_FOUND, s.Get, pb.GetRequest(collection="c", id="w"))


def payloads_stay_change_and_go(m):
    s = stub(m)
    def put(**more):
        s.Upsert(pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id="p", vector=[50, 50], **more)]))
        return s.Get(pb.GetRequest(collection="c", id="p", payload=pb.PAYLOAD_JSON)).point.payload_json
    assert put(metadata={"k": "1"}) == '{"k":"1"}'
    assert put() == '{"k":"1"}'
    assert put(payload_json='{"k":1}') == '{"k":1}'
    assert put(payload_json="{}") == "{}"
    assert put(payload_json="null") == ""
    for bad in ({"payload_json": "[1]"}, {"payload_json": "{"}, {"payload_json": "{}", "metadata": {"a": "b"}}, {"metadata": {"a.b": "c"}}):
        try:
            put(**bad)
            raise AssertionError(bad)
        except grpc.RpcError as e:
            assert e.code() == Code.INVALID_ARGUMENT and "points[0].metadata" in e.details(), e.details()
    s.Delete(pb.DeleteRequest(collection="c", ids=["p"]))


def pages_counts_facets_and_deletes_by_filter(m):
    s = stub(m)
    s.CreateCollection(pb.CreateCollectionRequest(collection="many", dim=2, metric=pb.METRIC_COSINE, quantization=pb.QUANTIZATION_NONE))
    s.Upsert(pb.UpsertRequest(collection="many", points=[
        pb.VectorPoint(id=f"m{i}", vector=[1, i], payload_json=json.dumps({"i": i, "odd": bool(i % 2), "s": f"v{i % 3}"})) for i in range(300)]))
    ids, cursor = [], ""
    while True:
        page = s.Scroll(pb.ScrollRequest(collection="many", limit=90, cursor=cursor, with_vector=True))
        ids += [p.id for p in page.points]
        assert all(len(p.vector) == 2 and p.metadata["s"].startswith("v") for p in page.points)
        cursor = page.cursor
        if not cursor:
            break
    assert sorted(ids) == sorted(f"m{i}" for i in range(300))
    expect_code(Code.INVALID_ARGUMENT, s.Scroll, pb.ScrollRequest(collection="many", cursor="x"), where="cursor")
    assert s.Count(pb.CountRequest(collection="many")).count == 300
    assert s.Count(pb.CountRequest(collection="many", filter={"s": "v1"})).count == 100
    assert s.Count(pb.CountRequest(collection="many", filter_expression="i < 10")).count == 10
    expect_code(Code.INVALID_ARGUMENT, s.Count, pb.CountRequest(collection="many", filter_expression="i <"), where="filter")
    f = s.Facet(pb.FacetRequest(collection="many", field="s", filter_expression="odd = true"))
    assert {v.string_value: v.count for v in f.values} == {"v0": 50, "v1": 50, "v2": 50} and f.vectors == 150, f
    f = s.Facet(pb.FacetRequest(collection="many", field="odd"))
    assert sorted((v.bool_value, v.count) for v in f.values) == [(False, 150), (True, 150)]
    f = s.Facet(pb.FacetRequest(collection="many", field="i", limit=2))
    assert len(f.values) == 2 and f.distinct == 300 and f.values[0].WhichOneof("value") == "integer_value"
    expect_code(Code.INVALID_ARGUMENT, s.Facet, pb.FacetRequest(collection="many", field=""), where="field")
    assert s.Delete(pb.DeleteRequest(collection="many", filter_expression="i >= 200")).deleted == 100
    assert s.Delete(pb.DeleteRequest(collection="many", filter={"s": "v0"})).deleted == 67
    expect_code(Code.INVALID_ARGUMENT, s.Delete, pb.DeleteRequest(collection="many"))
    st = s.Stats(pb.StatsRequest(collection="many"))
    assert st.dim == 2 and st.metric == pb.METRIC_COSINE and st.vectors == 133 and st.payloads == 133 and st.writable and st.memory_bytes
    assert "many" in s.ListCollections(pb.ListCollectionsRequest()).collections
    s.DropCollection(pb.DropCollectionRequest(collection="many"))
    assert "many" not in s.ListCollections(pb.ListCollectionsRequest()).collections
    expect_code(Code.NOT_FOUND, s.Search, pb.SearchRequest(collection="many", vector=[1, 0]))
    expect_code(Code.ALREADY_EXISTS, s.CreateCollection, pb.CreateCollectionRequest(collection="c", dim=2, metric=pb.METRIC_L2))


def streams_of_upserts_are_acknowledged_one_by_one(m):
    s = stub(m)
    def messages(n, size=20):
        for i in range(n):
            yield pb.UpsertRequest(collection="c", wait=pb.WAIT_APPLIED, points=[
                pb.VectorPoint(id=f"s{j}", vector=[1000 + i, j]) for j in range(size)])
    acks = list(s.UpsertStream(messages(50), timeout=PATIENCE * 2))
    assert [a.messages for a in acks] == list(range(1, 51)) and acks[-1].upserted == 1000 and acks[-1].epoch, acks[-1]
    assert list(s.Get(pb.GetRequest(collection="c", id="s3", with_vector=True)).point.vector) == [1049, 3]
    # An ack comes when its message is applied, not when the stream ends.
    told = queue.Queue()
    def one_by_one():
        for i in range(3):
            yield pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id="s0", vector=[i, i])])
            told.get(timeout=PATIENCE)
    for i, ack in enumerate(s.UpsertStream(one_by_one(), timeout=PATIENCE)):
        assert ack.messages == i + 1
        told.put(i)
    assert i == 2
    # A bad message ends the stream, and its status says how far it came.
    def broken():
        yield from messages(3)
        yield pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id="x", vector=[1, 2, 3])])
        yield from messages(3)
    got = []
    try:
        for ack in s.UpsertStream(broken(), timeout=PATIENCE):
            got.append(ack.messages)
        raise AssertionError("the stream ended well")
    except grpc.RpcError as e:
        assert e.code() == Code.INVALID_ARGUMENT and "3 messages" in e.details() and got == [1, 2, 3], (e, got)
    s.Delete(pb.DeleteRequest(collection="c", ids=[f"s{j}" for j in range(20)]))


def a_stream_is_taken_no_faster_than_it_is_applied(m):
    """While kithd stands still, the gateway takes what its window holds and no more."""
    c = g.Frames(m)
    body = g.message(pb.UpsertRequest(collection="c", points=[pb.VectorPoint(id="slow", vector_bytes=floats(7, 7), payload_json=json.dumps({"x": "y" * 16000}))]).SerializeToString())
    m.kithd.send_signal(signal.SIGSTOP)
    try:
        c.call(1, "/vectordb.VectorSearch/UpsertStream")
        taken, window, total = 0, 65535, 0
        c.s.settimeout(0.5 * SLOWNESS)
        data = body * 400
        while total < len(data):
            n = min(16384, window, len(data) - total)
            if n:
                c.send(g.frame(g.DATA, 0, 1, data[total:total + n]))
                total += n
                window -= n
            try:
                while window < 16384:
                    f = c.next()
                    assert f is not None, "the gateway has closed the connection"
                    if f[0] == g.WINDOW and f[2] == 1:
                        window += int.from_bytes(f[3], "big")
                    if f[0] == g.SETTINGS and f[3]:
                        for i in range(0, len(f[3]), 6):
                            if f[3][i:i + 2] == b"\x00\x04":
                                window += int.from_bytes(f[3][i + 2:i + 6], "big") - 65535
            except TimeoutError:
                break
        assert total < 3 << 20, f"{total} bytes were taken"
    finally:
        m.kithd.send_signal(signal.SIGCONT)
        c.close()
    wait_until("calls are over", lambda: m.metric("kith_gateway_body_memory_bytes") == 0)


def bad_requests_have_their_status_and_place(m):
    s = stub(m)
    S, U, V = pb.SearchRequest, pb.UpsertRequest, pb.VectorPoint
    bad = Code.INVALID_ARGUMENT
    expect_code(Code.NOT_FOUND, s.Search, S(collection="none", vector=[0, 0]))
    expect_code(bad, s.Search, S(vector=[0, 0]), where="collection")
    expect_code(bad, s.Search, S(collection="../c", vector=[0, 0]), where="collection")
    expect_code(bad, s.Search, S(collection="c"), where="vector")
    expect_code(bad, s.Search, S(collection="c", vector=[0, 0], like="a"), where="vector")
    expect_code(bad, s.Search, S(collection="c", vector=[0, 0, 0]), where="vector")
    expect_code(bad, s.Search, S(collection="c", vector=[0, float("nan")]), where="vector")
    expect_code(bad, s.Search, S(collection="c", vector_bytes=b"abc"), where="vector_bytes")
    expect_code(bad, s.Search, S(collection="c", vector=[0, 0], top_k=-1), where="top_k")
    expect_code(bad, s.Search, S(collection="c", vector=[0, 0], top_k=1 << 30), where="top_k")
    expect_code(bad, s.Search, S(collection="c", vector=[0, 0], ef_search=-5), where="ef_search")
    expect_code(bad, s.Search, S(collection="c", vector=[0, 0], target_recall=7), where="target_recall")
    expect_code(bad, s.Search, S(collection="c", vector=[0, 0], filter_expression="=="), where="filter")
    expect_code(bad, s.Search, S(collection="c", vector=[0, 0], payload=7), where="payload")
    expect_code(Code.NOT_FOUND, s.Search, S(collection="c", like="nobody"), where="like")
    expect_code(bad, s.Upsert, U(collection="c"), where="points")
    expect_code(bad, s.Upsert, U(collection="c", points=[V(vector=[0, 0])]), where="points[0].id")
    expect_code(bad, s.Upsert, U(collection="c", points=[V(id="a\0b", vector=[0, 0])]), where="points[0].id")
    expect_code(bad, s.Upsert, U(collection="c", points=[V(id="x" * 600, vector=[0, 0])]), where="points[0].id")
    expect_code(bad, s.Upsert, U(collection="c", points=[V(id="a", vector=[0, 0]), V(id="b")]), where="points[1].vector")
    expect_code(bad, s.Upsert, U(collection="c", points=[V(id="a", vector=[0, 0])], wait=9), where="wait")
    expect_code(bad, s.Delete, pb.DeleteRequest(collection="c", ids=[""]), where="ids[0]")
    expect_code(bad, s.CreateCollection, pb.CreateCollectionRequest(collection="d", dim=2), where="metric")
    expect_code(bad, s.CreateCollection, pb.CreateCollectionRequest(collection="d", dim=5000, metric=pb.METRIC_L2), where="dim")
    expect_code(Code.RESOURCE_EXHAUSTED, s.Upsert, U(collection="c", points=[V(id="a", vector=[0, 0], payload_json="x" * (1 << 20))]), where="body_mib")
    e = expect_code(bad, s.Upsert, U(collection="c", points=[V(id="", vector=[0, 0])]))
    assert dict(e.trailing_metadata())["kith-outcome"] == "nothing_done" and dict(e.trailing_metadata())["kith-code"] == "id"
    raw = g.channel(m)
    expect_code(Code.UNIMPLEMENTED, raw.unary_unary("/vectordb.VectorSearch/Nothing"), b"")
    expect_code(Code.UNIMPLEMENTED, raw.unary_unary("/nobody.Service/Search"), b"")
    expect_code(Code.UNIMPLEMENTED, s.Search, S(collection="c", vector=[0, 0]), compression=grpc.Compression.Gzip)
    search = raw.unary_unary("/vectordb.VectorSearch/Search")
    for body in (b"\x08\x01",              # collection as a number
                 b"\x0a\x05ab",            # cut off
                 b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01c",  # a length of 2^64
                 b"\x0a\x01c\x12\x03abc",  # a packed vector that is not of whole floats
                 b"\x0a\x01c\x13\x14",     # a group
                 b"\x0a\x01c\x00\x00",     # field 0
                 b"\x0a\x01\xff\x12\x04\0\0\0\0",  # not UTF-8
                 b"\x0a\x01c" + b"\xff" * 11):
        expect_code(bad, search, body)
    # Floats one by one, and in two pieces, are floats; unknown fields are passed over.
    one = struct.pack("<f", 0.1)
    a = pb.SearchResponse.FromString(search(b"\x0a\x01c\x15" + one + b"\x15" + b"\0\0\0\0" + b"\xf8\x3f\x01"))
    assert a.results[0].id == "a", a
    # A million points of two bytes are refused for what they are, and cost what their bytes cost.
    before = m.memory_kib()
    expect_code(bad, raw.unary_unary("/vectordb.VectorSearch/Upsert"), b"\x0a\x01c" + b"\x12\x00" * 500000, where="points")
    assert m.memory_kib() - before < 20000 * SLOWNESS, (before, m.memory_kib())


def deadlines_and_cancellation(m):
    s = stub(m)
    late = pb.SearchRequest(collection="c", vector=[0, 0], min_epoch=1 << 40)
    began = time.monotonic()
    expect_code(Code.DEADLINE_EXCEEDED, s.Search, late, timeout=0.3)
    assert time.monotonic() - began < 5 * SLOWNESS
    # By the gateway, not only by the client: a client without patience of its own hears of it.
    c = g.Frames(m)
    c.call(1, "/vectordb.VectorSearch/Search", g.message(late.SerializeToString()), more=[("grpc-timeout", "200m")])
    h = c.until(g.HEADERS, 1)
    assert h and h[1] & g.END_STREAM and b"4" in h[3], h
    # And a nonsense of a timeout is one.
    c.call(3, "/vectordb.VectorSearch/Search", g.message(late.SerializeToString()), more=[("grpc-timeout", "soon")])
    assert c.until(g.HEADERS, 3)[1] & g.END_STREAM
    c.close()
    waiting = lambda: m.metric("kith_gateway_waiting_for_epoch")
    calls = [s.Search.future(late, timeout=PATIENCE) for _ in range(5)]
    wait_until("they wait", lambda: waiting() == 5)
    for call in calls:
        call.cancel()
    wait_until("they are gone", lambda: waiting() == 0)
    wait_until("they are counted", lambda: m.metric("kith_gateway_grpc_calls_total", method="Search", code="CANCELLED") >= 5)


def health_is_told(m):
    h = g.health_pb2_grpc.HealthStub(g.channel(m))
    R = g.health_pb2.HealthCheckRequest
    for name in ("", "vectordb.VectorSearch", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"):
        assert h.Check(R(service=name)).status == g.health_pb2.HealthCheckResponse.SERVING, name
    expect_code(Code.NOT_FOUND, h.Check, R(service="vectordb"))
    w = h.Watch(R(service="nobody"), timeout=PATIENCE)
    assert next(w).status == g.health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    w.cancel()


def reflection_describes_all_of_it(m):
    from google.protobuf import descriptor_pb2
    for pb2, grpc2 in ((g.reflection_v1_pb2, g.reflection_v1_pb2_grpc), (g.reflection_v1alpha_pb2, g.reflection_v1alpha_pb2_grpc)):
        R = pb2.ServerReflectionRequest
        asked = [R(list_services=""), R(file_by_filename="vectordb.proto"), R(file_containing_symbol="vectordb.VectorSearch.Search"),
                 R(file_containing_symbol="vectordb.VectorPoint.MetadataEntry"), R(file_containing_symbol="vectordb.Nothing"),
                 R(file_containing_symbol="grpc.health.v1.HealthCheckResponse.ServingStatus"), R(file_by_filename="nothing.proto"),
                 R(all_extension_numbers_of_type="vectordb.VectorPoint")]
        got = list(grpc2.ServerReflectionStub(g.channel(m)).ServerReflectionInfo(iter(asked), timeout=PATIENCE))
        assert len(got) == len(asked) and all(a.original_request == q for a, q in zip(got, asked))
        names = {s.name for s in got[0].list_services_response.service}
        assert names == {"vectordb.VectorSearch", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
        files = [descriptor_pb2.FileDescriptorProto.FromString(got[i].file_descriptor_response.file_descriptor_proto[0]).name for i in (1, 2, 3, 5)]
        assert files == ["vectordb.proto"] * 3 + ["health.proto"], files
        assert [got[i].error_response.error_code for i in (4, 6, 7)] == [5, 5, 5]


def the_numbers_of_the_fields_are_those_that_were_given(m):
    numbers = lambda message: {f.name: f.number for f in message.DESCRIPTOR.fields}
    for message, given in ((pb.VectorPoint, {"id": 1, "vector": 2, "metadata": 3}), (pb.UpsertRequest, {"collection": 1, "points": 2}),
                           (pb.SearchRequest, {"collection": 1, "vector": 2, "top_k": 3, "ef_search": 4, "filter": 5}),
                           (pb.SearchResult, {"id": 1, "score": 2, "metadata": 3}), (pb.SearchResponse, {"results": 1, "latency_us": 2}),
                           (pb.DeleteRequest, {"collection": 1, "ids": 2}), (pb.BatchSearchRequest, {"collection": 1, "searches": 2})):
        assert given.items() <= numbers(message).items(), message


def calls_are_counted_and_logged(m):
    stub(m).Search(pb.SearchRequest(collection="c", vector=[0, 0]), metadata=[("x-request-id", "my-own-id")])
    line = [l for l in m.log().splitlines() if "id=my-own-id" in l]
    assert line and "method=GRPC" in line[0] and "status=OK" in line[0] and "path=/vectordb.VectorSearch/Search" in line[0], line
    assert m.metric("kith_gateway_grpc_calls_total", method="Search", code="OK") > 0
    assert m.metric("kith_gateway_grpc_calls_total", method="none", code="UNIMPLEMENTED") > 0
    assert m.metric("kith_gateway_grpc_call_seconds_count", method="Upsert") > 0


def many_calls_at_a_time_are_all_answered(m):
    s = stub(m)
    calls = [s.Search.future(pb.SearchRequest(collection="c", vector=[i % 3, 0], top_k=1), timeout=PATIENCE) for i in range(600)]
    for i, call in enumerate(calls):
        try:
            assert call.result().results[0].id == "ab" [i % 3] if i % 3 < 2 else call.result().results
        except grpc.RpcError as e:
            assert e.code() == Code.RESOURCE_EXHAUSTED, e


TESTS = [searches_find_what_is_near, batches_are_answered_in_their_order, writes_are_read_by_their_epoch, payloads_stay_change_and_go,
         pages_counts_facets_and_deletes_by_filter, streams_of_upserts_are_acknowledged_one_by_one,
         a_stream_is_taken_no_faster_than_it_is_applied, bad_requests_have_their_status_and_place, deadlines_and_cancellation, health_is_told,
         reflection_describes_all_of_it, the_numbers_of_the_fields_are_those_that_were_given, calls_are_counted_and_logged,
         many_calls_at_a_time_are_all_answered]

if __name__ == "__main__":
    main(TESTS, set_up)
