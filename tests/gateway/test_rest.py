"""Every call: what it does, what it answers, what it refuses and where it says the fault is."""
import base64
import json
import struct
import threading

from support import expect, floats, main, wait_until

DOCS = "/collections/docs"
POINTS = [{"id": "north", "vector": [0, 1, 0], "metadata": {"lang": "en", "chars": 420, "tags": ["x", "y"]}},
          {"id": "east", "vector": [1, 0, 0], "metadata": {"lang": "de", "chars": 17}},
          {"id": "a/b c?%", "vector": [0.6, 0.8, 0], "metadata": {"lang": "en", "chars": 5, "vector": [1, 2, 3]}},
          {"id": "\u00fc\U0001f600", "vector": [0, 0, 1]}]


def fill(m):
    expect(m.ask("DELETE", DOCS), 404) if "docs" not in m.get("/collections").json["collections"] else \
        expect(m.ask("DELETE", DOCS), 200)
    expect(m.ask("PUT", DOCS, {"dim": 3, "metric": "cosine"}), 201)
    return expect(m.post(DOCS + "/upsert", {"points": POINTS}), 200).json


def ids(answer):
    return [hit["id"] for hit in answer.json["results"]]


def collections_are_made_described_changed_and_dropped(m):
    a = expect(m.ask("PUT", "/collections/box", {"dim": 4, "metric": "l2", "m": 8, "quantization": "sq8"}), 201)
    assert a.json == {"created": "box"}
    expect(m.ask("PUT", "/collections/box", {"dim": 4, "metric": "l2"}), 409, "exists")
    a = expect(m.get("/collections/box"), 200).json
    assert (a["dim"], a["metric"], a["m"], a["quantization"], a["count"], a["writable"]) == (4, "l2", 8, "sq8", 0, True), a
    assert "box" in expect(m.get("/collections"), 200).json["collections"]
    assert expect(m.ask("PATCH", "/collections/box", {"m": 12}), 200).json["done"] == "copied"
    assert m.get("/collections/box").json["m"] == 12
    expect(m.ask("PATCH", "/collections/box", {}), 422, "value")
    a = m.get("/collections/box").json
    assert (a["index"], a["index_fields"], a["index_misfits"]) == ("auto", 0, 0), a
    assert expect(m.ask("PATCH", "/collections/box", {"index": "lang:keyword,n:float"}), 200).json["done"] == "settings"
    assert m.get("/collections/box").json["index"] == "lang:keyword,n:number"
    expect(m.ask("PATCH", "/collections/box", {"index": "lang:text"}), 422)
    expect(m.ask("PUT", "/collections/box2", {"dim": 4, "metric": "l2", "index": "lang"}), 422)
    expect(m.ask("PUT", "/collections/box2", {"dim": 4, "metric": "l2", "index": "none"}), 201)
    assert m.get("/collections/box2").json["index"] == "none"
    expect(m.ask("DELETE", "/collections/box2"), 200)
    expect(m.ask("DELETE", "/collections/box"), 200)
    expect(m.ask("DELETE", "/collections/box"), 404, "no_collection")
    expect(m.get("/collections/box"), 404, "no_collection")
    expect(m.ask("PUT", "/collections/box", {"dim": 4}), 422, "value", "metric")
    expect(m.ask("PUT", "/collections/box", {"dim": 5000, "metric": "l2"}), 422, "value", "dim")
    expect(m.ask("PUT", "/collections/box", {"dim": 4, "metric": "L2"}), 422, "value", "metric")
    expect(m.ask("PUT", "/collections/b.x", {"dim": 4, "metric": "l2"}), 400, "path")


def vectors_are_put_got_and_deleted(m):
    done = fill(m)
    assert done["upserted"] == 4 and done["epoch"] >= 1 and done["durable_epoch"] >= done["epoch"]
    for point in POINTS:
        path = DOCS + "/vectors/" + "".join(f"%{b:02X}" for b in point["id"].encode())
        a = expect(m.get(path), 200).json
        assert a["id"] == point["id"] and a["metadata"] == point.get("metadata")
        assert all(abs(x - y) < 1e-6 for x, y in zip(a["vector"], point["vector"])), a
    a = expect(m.get(DOCS + "/vectors/north?with_vector=false&with_payload=false"), 200).json
    assert "vector" not in a and "metadata" not in a and a["timeline"] == done["timeline"]
    expect(m.get(DOCS + "/vectors/nobody"), 404, "not_found")
    expect(m.ask("DELETE", DOCS + "/vectors/east"), 200)
    expect(m.ask("DELETE", DOCS + "/vectors/east"), 404, "not_found")
    a = expect(m.post(DOCS + "/delete", {"ids": ["north", "nobody"], "wait": "applied"}), 200).json
    assert a["deleted"] == 1 and a["wait"] == "applied"
    assert expect(m.post(DOCS + "/delete", {"filter": "chars = 5"}), 200).json["deleted"] == 1
    assert expect(m.post(DOCS + "/count"), 200).json["count"] == 1
    expect(m.post(DOCS + "/delete", {"ids": ["a"], "filter": "x = 1"}), 422, "value", "ids")
    expect(m.post(DOCS + "/delete", {"ids": ["a", 5]}), 422, "id", "ids[1]")
    expect(m.post(DOCS + "/delete", {"ids": []}), 422, "value", "ids")


def searches_find_what_is_near(m):
    fill(m)
    search = DOCS + "/search"
    a = expect(m.post(search, {"vector": [0, 1, 0], "top_k": 2}), 200)
    assert ids(a) == ["north", "a/b c?%"] and abs(a.json["results"][0]["score"] - 1) < 1e-6
    assert a.json["results"][0]["metadata"] == POINTS[0]["metadata"]
    assert a.json["results"][1]["metadata"]["vector"] == [1, 2, 3], "a payload's own member named vector is left alone"
    assert float(a.headers["X-Search-Latency-Ms"]) * 1000 >= a.json["latency_us"] - 1 and "search;dur=" in a.headers["Server-Timing"]
    assert ids(expect(m.post(search, {"vector": [0, 1, 0], "filter": {"lang": "de"}}), 200)) == ["east"]
    assert ids(expect(m.post(search, {"vector": [0, 1, 0], "filter": {"lang": "en", "chars": 5}}), 200)) == ["a/b c?%"]
    a = expect(m.post(search, {"vector": [0, 1, 0], "filter": 'lang = "en" and chars > 40', "with_payload": ["chars"]}), 200)
    assert ids(a) == ["north"] and a.json["results"][0]["metadata"] == {"chars": 420}
    a = expect(m.post(search, {"like": "north", "top_k": 1, "with_payload": False, "with_vector": True}), 200).json["results"][0]
    assert a["id"] == "a/b c?%" and "metadata" not in a and abs(a["vector"][1] - 0.8) < 1e-6
    text = base64.b64encode(floats(0, 1, 0)).decode()
    assert ids(expect(m.post(search, {"vector": text, "top_k": 1, "exact": True}), 200)) == ["north"]
    octets = {"Content-Type": "application/octet-stream"}
    a = expect(m.post(search + "?top_k=1&with_payload=false&filter=chars%3C100", floats(0, 1, 0), headers=octets), 200)
    assert ids(a) == ["a/b c?%"]
    assert len(ids(expect(m.post(search, {"vector": [0, 1, 0], "score_threshold": 0.5}), 200))) == 2
    assert ids(expect(m.post(search, {"vector": [0, 1, 0], "target_recall": 0.9, "top_k": 1}), 200)) == ["north"]
    assert len(ids(expect(m.post(search, {"vector": [0, 1, 0], "top_k": 5000}), 200))) == 4, "wide, with payloads one by one"
    assert ids(expect(m.post(search, {"vector": [0, 1, 0], "top_k": 1, "ef_search": 3000}), 200)) == ["north"]
    assert expect(m.post(search, {"vector": [0, 1, 0], "filter": "nothing = 1"}), 200).json["notice"]


def scores_are_distances_or_similarities(m):
    for metric, near, far in (("l2", 0.0, 4.0), ("ip", 4.0, 0.0)):
        path = "/collections/score-" + metric
        expect(m.ask("PUT", path, {"dim": 2, "metric": metric}), 201)
        expect(m.post(path + "/upsert", {"points": [{"id": "a", "vector": [2, 0]}, {"id": "b", "vector": [0, 0]}]}), 200)
        hits = expect(m.post(path + "/search", {"vector": [2, 0]}), 200).json["results"]
        assert [(h["id"], h["score"]) for h in hits] == [("a", near), ("b", far)], hits
        kept = expect(m.post(path + "/search", {"vector": [2, 0], "score_threshold": 1.0}), 200).json["results"]
        assert [h["id"] for h in kept] == ["a"], kept
    # A score of an answer, as the threshold, keeps its own hit and all that are nearer.
    for metric in ("l2", "ip", "cosine"):
        path = "/collections/own-" + metric
        expect(m.ask("PUT", path, {"dim": 3, "metric": metric}), 201)
        expect(m.post(path + "/upsert", {"points": [{"id": f"t{i}", "vector": [0.1 * i, 0.3 / (i + 1), 0.7]} for i in range(30)]}), 200)
        hits = expect(m.post(path + "/search", {"vector": [0.2, 0.1, 0.3], "top_k": 30}), 200).json["results"]
        assert len(hits) == 30
        for n, hit in enumerate(hits):
            kept = ids(m.post(path + "/search", {"vector": [0.2, 0.1, 0.3], "top_k": 30, "score_threshold": hit["score"]}))
            assert hit["id"] in kept and len(kept) >= n + 1, (metric, hit, kept)
        all_of, none = (1e300, -1e300) if metric == "l2" else (-1e300, 1e300)  # beyond what floats have
        for threshold, n in ((all_of, 30), (none, 0)):
            assert len(ids(m.post(path + "/search", {"vector": [1, 1, 1], "top_k": 30, "score_threshold": threshold}))) == n, metric


def batches_are_answered_in_their_order(m):
    fill(m)
    path = DOCS + "/search/batch"
    one = {"vector": [0, 1, 0], "top_k": 1}
    text = base64.b64encode(floats(1, 0, 0)).decode()
    a = expect(m.post(path, {"searches": [one, {"vector": text, "top_k": 1}, {"like": "north", "top_k": 1}]}), 200).json
    assert [r["results"][0]["id"] for r in a["responses"]] == ["north", "east", "a/b c?%"], a
    assert len(expect(m.post(path, {"searches": [one] * 200}), 200).json["responses"]) == 200
    expect(m.post(path, {"searches": []}), 422, "value", "searches")
    expect(m.post(path, {"searches": [one] * 1001}), 422, "value", "searches")
    expect(m.post(path, {"searches": [one, {"vector": [1, 2]}]}), 422, "dimension", "searches[1].vector")
    expect(m.post(path, {"searches": [one, {"vector": [1, 2, 3], "top": 1}]}), 422, "unknown_member", "searches[1].top")
    expect(m.post(path, {"searches": [dict(one, deadline_ms=5)]}), 422, "value")
    expect(m.post(path, {"searches": [{"top_k": 1}]}), 422, "value", "searches[0].vector")
    expect(m.post(path, {"searches": [one, dict(one, like="north")]}), 422, "value", "searches[1].vector")


def payloads_change_alone(m):
    fill(m)
    path = DOCS + "/vectors/north/payload"
    assert expect(m.ask("PATCH", path, {"read": True, "chars": None}), 200).json["changed"] == 1
    assert m.get(DOCS + "/vectors/north").json["metadata"] == {"lang": "en", "tags": ["x", "y"], "read": True}
    expect(m.ask("PATCH", path + "?mode=remove", ["tags"]), 200)
    expect(m.ask("PATCH", path + "?mode=replace&wait=applied", {"n": 1.5, "big": 9007199254740993}), 200)
    assert m.get(DOCS + "/vectors/north").json["metadata"] == {"n": 1.5, "big": 9007199254740993}
    expect(m.ask("PATCH", DOCS + "/vectors/nobody/payload", {"a": 1}), 404, "not_found")
    expect(m.ask("PATCH", path, [1]), 422, "payload")
    expect(m.ask("PATCH", path, b'{"a":1'), 400, "json")
    expect(m.ask("PATCH", path, b'{"a":' * 64 + b"1" + b"}" * 64), 422, "payload")
    expect(m.ask("PATCH", path, b'{"a":' * 65 + b"1" + b"}" * 65), 400, "json", "byte 320")
    expect(m.ask("PATCH", path + "?mode=other", {"a": 1}), 400, "query", "mode")
    # Without metadata it stays, null takes it away.
    expect(m.post(DOCS + "/upsert", {"points": [{"id": "north", "vector": [0, 1, 0]}]}), 200)
    assert m.get(DOCS + "/vectors/north").json["metadata"]["n"] == 1.5
    expect(m.post(DOCS + "/upsert", {"points": [{"id": "north", "vector": [0, 1, 0], "metadata": None}]}), 200)
    assert m.get(DOCS + "/vectors/north").json["metadata"] is None


def scrolls_see_every_id_once(m):
    fill(m)
    many = [{"id": f"n{i}", "vector": [1, i, 0]} for i in range(300)]
    expect(m.post(DOCS + "/upsert", {"points": many}), 200)
    seen, cursor = [], None
    while True:
        page = expect(m.post(DOCS + "/scroll", {"limit": 70, "cursor": cursor}), 200).json
        seen += [p["id"] for p in page["points"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 304
    page = expect(m.post(DOCS + "/scroll", {"filter": "chars > 1", "with_payload": True, "with_vector": True, "limit": 1000}), 200).json
    assert sorted(p["id"] for p in page["points"]) == ["a/b c?%", "east", "north"] and len(page["points"][0]["vector"]) == 3
    expect(m.post(DOCS + "/scroll", {"cursor": "nonsense"}), 422, "cursor", "cursor")
    assert expect(m.post(DOCS + "/count", {"filter": 'lang = "en"'}), 200).json["count"] == 2
    assert expect(m.post(DOCS + "/count"), 200).json["count"] == 304


def facets_count_the_values_of_a_field(m):
    fill(m)
    path = DOCS + "/facet"

    def values(body):
        a = expect(m.post(path, body), 200).json
        return [(v["value"], v["count"]) for v in a["values"]], (a["vectors"], a["with"], a["distinct"], a["other"])
    a = expect(m.post(path, {"field": "lang"}), 200).json
    assert a["field"] == "lang" and a["epoch"] == m.get(DOCS).json["epoch"] and a["timeline"] == m.get(DOCS).json["timeline"], a
    assert values({"field": "lang"}) == ([("en", 2), ("de", 1)], (4, 3, 2, 0))
    assert values({"field": "lang", "limit": 1}) == ([("en", 2)], (4, 3, 2, 0))
    assert values({"field": "lang", "filter": "chars < 100"}) == ([("de", 1), ("en", 1)], (2, 2, 2, 0))
    assert values({"field": "lang", "filter": {"lang": "en"}}) == ([("en", 2)], (2, 2, 1, 0))
    assert values({"field": "tags"}) == ([("x", 1), ("y", 1)], (4, 1, 2, 0)), "an array is each of its values"
    for nothing in ("nothing", "lang.deeper"):
        assert values({"field": nothing}) == ([], (4, 0, 0, 0))
    # Values come as they stand in a payload, of every type, and a filter finds as many as were counted.
    many = [{"id": f"v{i}", "vector": [1, i, 0], "metadata": {"a": {"v": v}}}
            for i, v in enumerate([True, False, 5, 5.0, 2 ** 53 + 1, -0.1, 1e300, 'q"\u00fc\n', "", None, {}, []])]
    expect(m.post(DOCS + "/upsert", {"points": many}), 200)
    found, figures = values({"field": "a.v"})
    assert found == [(5, 2), (False, 1), (True, 1), (2 ** 53 + 1, 1), (-0.1, 1), (1e300, 1), ("", 1), ('q"\u00fc\n', 1)], found
    assert [type(v) for v, _ in found] == [int, bool, bool, int, float, float, str, str] and figures == (16, 9, 8, 0), figures
    more = [{"id": f"m{i}", "vector": [1, i, 0], "metadata": {"n": i % 150}} for i in range(450)]
    done = expect(m.post(DOCS + "/upsert", {"points": more, "wait": "applied"}), 200).json
    now = {"min_epoch": done["epoch"], "timeline": done["timeline"]}
    assert values(dict(now, field="n")) == ([(i, 3) for i in range(100)], (466, 450, 150, 0))
    assert values(dict(now, field="n", limit=65536))[0] == [(i, 3) for i in range(150)]
    found = []
    waiter = threading.Thread(target=lambda: found.append(values({"field": "lang", "min_epoch": m.get(DOCS).json["epoch"] + 1})))
    waiter.start()
    wait_until("the facet waits", lambda: m.metric("kith_gateway_waiting_for_epoch") == 1)
    expect(m.post(DOCS + "/upsert", {"points": [{"id": "late", "vector": [0, 0, 1], "metadata": {"lang": "de"}}]}), 200)
    waiter.join()
    assert found == [([("de", 2), ("en", 2)], (467, 4, 2, 0))], found
    for body, code, where in (
            ({}, "value", "field"), ({"field": None}, "value", "field"), ({"field": 5}, "value", "field"), ({"field": ""}, "payload", "field"),
            ({"field": "a..b"}, "payload", "field"), ({"field": ".".join("a" * 17)}, "payload", "field"), ({"field": "k" * 256}, "payload", "field"),
            ({"field": "lang", "limit": 0}, "value", "limit"), ({"field": "lang", "limit": 65537}, "value", "limit"),
            ({"field": "lang", "limit": "5"}, "value", "limit"), ({"field": "lang", "filter": "a ="}, "filter", "filter"),
            ({"field": "lang", "filter": {"lang": [1]}}, "filter", "filter.lang"), ({"field": "lang", "filter": 'chars = "x"'}, "filter", "filter"),
            ({"field": "lang", "at": 1}, "unknown_member", "at"), ({"field": "lang", "timeline": "x"}, "value", "timeline")):
        assert expect(m.post(path, body), 422, code, where).json["error"]["message"]
    assert m.post(path, {"field": "a..b"}).json["error"]["message"] == "field is no path: a key is empty"
    assert values({"field": ".".join(["k" * 255] * 16)})[0] == [], "the longest path that there can be"
    expect(m.post(path, {"field": "lang", "timeline": "1"}), 409, "timeline")
    expect(m.post(path), 400, "body_missing")
    expect(m.post(path + "?field=lang", {"field": "lang"}), 400, "query", "field")
    expect(m.get(path), 405)
    expect(m.post("/collections/none/facet", {"field": "lang"}), 404, "no_collection")
    assert m.metric("kith_gateway_requests_total", route="facet", status="404") >= 1


def a_write_can_be_read_by_its_epoch(m):
    fill(m)
    expect(m.post(DOCS + "/search", {"vector": [0, 1, 0], "min_epoch": 10 ** 6, "deadline_ms": 150}), 504, "epoch_not_visible")
    expect(m.post(DOCS + "/search", {"vector": [0, 1, 0], "min_epoch": 1, "timeline": "1"}), 409, "timeline")
    now = m.get(DOCS).json["epoch"]
    found = []

    def wait():
        found.append(m.post(DOCS + "/search", {"vector": [0, 0, 1], "min_epoch": now + 1, "top_k": 1, "exact": True}))
    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until("the search waits", lambda: m.metric("kith_gateway_waiting_for_epoch") == 1)
    a = expect(m.post(DOCS + "/upsert", {"points": [{"id": "late", "vector": [0, 0, 1]}], "wait": "none"}), 200).json
    waiter.join()
    assert expect(found[0], 200).json["epoch"] >= a["epoch"]
    # Whoever goes away while waiting is not waited for.
    c = m.connect()
    c.request("POST", DOCS + "/search", json.dumps({"vector": [0, 0, 1], "min_epoch": 10 ** 6}), {"Content-Type": "application/json"})
    wait_until("the search waits", lambda: m.metric("kith_gateway_waiting_for_epoch") == 1)
    c.close()
    wait_until("nobody waits", lambda: m.metric("kith_gateway_waiting_for_epoch") == 0)


def bad_values_are_refused_with_their_place(m):
    fill(m)
    search, upsert = DOCS + "/search", DOCS + "/upsert"
    for body, code, where in (
            ({}, "value", "vector"), ({"vector": []}, "dimension", "vector"), ({"vector": [1, 2]}, "dimension", "vector"),
            ({"vector": [0, 0, 0]}, "zero_vector", "vector"), ({"vector": "AAAA"}, "value", "vector"),
            ({"vector": "!!!!"}, "value", "vector"), ({"vector": ["1", 2, 3]}, "value", "vector"),
            ({"vector": {"a": 1}}, "value", "vector"), ({"vector": [1, 0, 0], "top_k": 0}, "value", "top_k"),
            ({"vector": [1, 0, 0], "top_k": 10001}, "value", "top_k"), ({"vector": [1, 0, 0], "top_k": 1.5}, "value", "top_k"),
            ({"vector": [1, 0, 0], "top_k": "5"}, "value", "top_k"), ({"vector": [1, 0, 0], "ef_search": 1}, "ef_search", "ef_search"),
            ({"vector": [1, 0, 0], "target_recall": 1.5}, "target_recall", "target_recall"),
            ({"vector": [1, 0, 0], "exact": 1}, "value", "exact"), ({"vector": [1, 0, 0], "filter": "a ="}, "filter", "filter"),
            ({"vector": [1, 0, 0], "filter": {"id": {"a": 1}}}, "filter", "filter.id"), ({"vector": [1, 0, 0], "filter": {}}, "filter", "filter"),
            ({"vector": [1, 0, 0], "filter": 'chars = "x"'}, "filter", "filter"), ({"vector": [1, 0, 0], "filter": [1]}, "filter", "filter"),
            ({"vector": [1, 0, 0], "with_payload": []}, "value", "with_payload"), ({"vector": [1, 0, 0], "colour": 1}, "unknown_member", "colour"),
            ({"vector": [1, 0, 0], "like": "north"}, "value", "vector"), ({"id": {"a": 1}}, "unknown_member", "id"),
            ({"vector": [1, 0, 0], "timeline": "x"}, "value", "timeline")):
        expect(m.post(search, body), 422, code, where)
    expect(m.post(search, {"like": "nobody"}), 404, "not_found", "like")
    for body in (b"{", b"[]x", b'{"vector":[1,2,3]}x', b'{"vector":[01,2,3]}', b'{"vector":[1,2,]}', b'{"vector":[1 2]}',
                 b'{"vector":[NaN,1,2]}', b'{"vector":[1e99,1,2]}', b'{"vector":[1,2,3],"vector":[1,2,3]}',
                 b'{"vector":[1,2,3],"filter":"\xff"}', b'{"a":"\\u0000"}', b'{"a":"\x00"}', b"[" * 100000, b'{"a":' * 5000,
                 b'{"v\\u0065ctor":[0]}', b"\xef\xbb\xbf{}", b"'", b'{"vector":[1,2,3'):
        expect(m.post(search, body), 400, "json")
    expect(m.post(search, b"[]"), 422, "value")
    good = {"id": "x", "vector": [1, 0, 0]}
    for point, code, where in (({"vector": [1, 0, 0]}, "value", "points[1].id"), ({"id": "x"}, "value", "points[1].vector"),
                               ({"id": 5, "vector": [1, 0, 0]}, "value", "points[1].id"), ({"id": "", "vector": [1, 0, 0]}, "id", "points[1].id"),
                               ({"id": "x" * 512, "vector": [1, 0, 0]}, "id", "points[1].id"),
                               ({"id": "x", "vector": [1, 0]}, "dimension", "points[1].vector"), ({"id": "x", "vector": []}, "dimension", "points[1].vector"),
                               ({"id": "x", "vector": [1, 0, 0], "metadata": 5}, "payload", "points[1].metadata"),
                               ({"id": "x", "vector": [1, 0, 0], "metadata": {"a": "b" * 70000}}, "payload", "points[1].metadata"),
                               ({"id": "x", "vector": [1, 0, 0], "meta": {}}, "unknown_member", "points[1].meta"), (7, "value", "points[1]")):
        a = expect(m.post(upsert, {"points": [good, point]}), 422, code, where)
        assert a.json["error"]["outcome"] == "nothing_done"
    expect(m.post(upsert, {"points": [good], "wait": "later"}), 422, "value", "wait")
    expect(m.get(DOCS + "/vectors/x"), 404)
    octets = {"Content-Type": "application/octet-stream"}
    expect(m.post(upsert, floats(1, 0, 0), headers=octets), 400, "query", "id")
    expect(m.post(upsert + "?id=x", b"abc", headers=octets), 422, "dimension")
    expect(m.post(upsert + "?id=o&wait=none", floats(1, 0, 0), headers=octets), 200)
    expect(m.post(search + "?top_k=x", floats(1, 0, 0), headers=octets), 400, "query", "top_k")


def many_vectors_go_as_octets(m):
    octets = {"Content-Type": "application/octet-stream"}
    upsert = "/collections/rows/upsert"
    expect(m.ask("PUT", "/collections/rows", {"dim": 3, "metric": "l2"}), 201)

    def ids(*names):
        return b"".join(struct.pack("<H", len(name)) + name for name in names)

    def send(points, body, query=""):
        return m.post(f"{upsert}?points={points}{query}", body, headers=octets)
    two = ids(b"a", "\u00e9/2".encode())
    done = expect(send(2, two + floats(1, 2, 3, 4, 5, 6)), 200).json
    assert done["upserted"] == 2 and done["wait"] == "durable" and done["durable_epoch"] >= done["epoch"]
    assert m.get("/collections/rows/vectors/%C3%A9%2F2").json["vector"] == [4, 5, 6]
    # The same id twice: the last one stays; a payload stays, too.
    expect(m.ask("PATCH", "/collections/rows/vectors/a/payload", {"n": 1}), 200)
    assert expect(send(2, ids(b"a", b"a") + floats(0, 0, 0, 7, 8, 9), "&wait=applied"), 200).json["wait"] == "applied"
    a = m.get("/collections/rows/vectors/a").json
    assert a["vector"] == [7, 8, 9] and a["metadata"] == {"n": 1}
    many = 5000
    names = [b"m%d" % i for i in range(many)]
    rows = struct.pack(f"<{3 * many}f", *range(3 * many))
    assert expect(send(many, ids(*names) + rows), 200).json["upserted"] == many
    assert m.get("/collections/rows/vectors/m4321").json["vector"] == [3 * 4321, 3 * 4321 + 1, 3 * 4321 + 2]
    count = m.post("/collections/rows/count", {}).json["count"]
    # What does not fit to the byte is refused as a whole.
    row = floats(1, 2, 3)
    for points, body, code, where in (
            (2, two + row, "octets", None), (2, two + row * 3, "octets", None), (2, two + row * 2 + b"x", "octets", None), (2, (two + row * 2)[:-1], "octets", None),
            (1, two + row, "octets", None), (3, two + row * 2, None, None), (2, ids(b"x") + b"\x05", "octets", "points[1].id"),
            (2, ids(b"x") + b"\x05\x00abc", "octets", "points[1].id"), (1, b"\x00\x00" + row, "id", "points[0].id"),
            (1, b"\xff\xff" + b"a" * 70000, "id", "points[0].id"), (1, ids(b"a\x00b") + row, "id", "points[0].id"),
            (2, ids(b"new", b"\xff\xfe") + row * 2, "id", "points[1].id"), (2, ids(b"new", b"b" * 512) + row * 2, "id", "points[1].id"),
            (2, ids(b"new", b"other") + row + floats(1, float("nan"), 1), "not_finite", "points[1].vector"), (0, row, "value", "points"),
            (10001, row, "value", "points")):
        expect(send(points, body), 422, code, where)
    for query, body in (("?points=1&id=a", ids(b"a") + row), ("?points=x", row), ("?points=-1", row), ("?points=1&colour=1", ids(b"a") + row), ("", row)):
        expect(m.post(upsert + query, body, headers=octets), 400, "query")
    expect(m.post("/collections/none/upsert?points=1", ids(b"a") + row, headers=octets), 404, "no_collection")
    assert m.post("/collections/rows/count", {}).json["count"] == count
    expect(m.post("/collections/none/search", {"vector": [1]}), 404, "no_collection")


def figures_are_there(m):
    fill(m)
    a = expect(m.get(DOCS + "/stats"), 200).json
    assert a["live"] == 4 and a["memory"]["file_bytes"] > 0 and a["daemon"]["name"] == "docs" and a["writable"]
    assert {g["name"] for g in a["memory"]["regions"]} >= {"header", "records", "rows"}
    a = expect(m.post(DOCS + "/checkpoints"), 200).json
    assert a["checkpoint"] == a["epoch"]
    expect(m.post(DOCS + "/checkpoints", {"a": 1}), 422, "unknown_member")
    text = expect(m.get("/metrics"), 200).body.decode()
    names = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in names, f"{name} is there twice"
            names.add(name)
        elif not line.startswith("#"):
            base = line.split("{")[0].split()[0]
            assert base in names or base.rsplit("_", 1)[0] in names, line
            float(line.rsplit(" ", 1)[1])
    for name in ("kith_gateway_requests_total", "kith_gateway_request_seconds", "kith_vectors", "kith_epoch", "kith_durable_epoch",
                 "kith_wal_bytes_total", "kith_wal_flushes_total", "kith_group_size", "kith_checkpoint_age_seconds", "kith_repair_waiting",
                 "kith_unreachable_vectors", "kith_sampled_recall", "kith_gateway_filter_plans_total", "kith_memory_bytes"):
        assert name in names, f"{name} is missing"
    assert m.metric("kith_vectors", collection="docs") == 4 and m.metric("kith_up") == 1
    before = m.metric("kith_gateway_requests_total", route="search", status="422")
    expect(m.post(DOCS + "/search", {}), 422)
    assert m.metric("kith_gateway_requests_total", route="search", status="422") == before + 1


def a_collection_made_anew_is_found(m):
    fill(m)
    expect(m.post(DOCS + "/search", {"vector": [1, 0, 0]}), 200)
    expect(m.ask("DELETE", DOCS), 200)
    expect(m.post(DOCS + "/search", {"vector": [1, 0, 0]}), 404, "no_collection")
    expect(m.ask("PUT", DOCS, {"dim": 2, "metric": "l2"}), 201)
    expect(m.post(DOCS + "/upsert", {"points": [{"id": "z", "vector": [1, 2]}]}), 200)
    assert ids(expect(m.post(DOCS + "/search", {"vector": [1, 0]}), 200)) == ["z"]


def set_up(m):
    m.start_kithd()
    m.start_gateway()
    m.writable()


main([collections_are_made_described_changed_and_dropped, vectors_are_put_got_and_deleted, searches_find_what_is_near,
      scores_are_distances_or_similarities, batches_are_answered_in_their_order, payloads_change_alone, scrolls_see_every_id_once,
      facets_count_the_values_of_a_field, a_write_can_be_read_by_its_epoch, bad_values_are_refused_with_their_place, many_vectors_go_as_octets,
      figures_are_there, a_collection_made_anew_is_found], set_up)
