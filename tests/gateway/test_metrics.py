"""/metrics: its grammar, the table that describes it, and the dashboard and the alerts that are made of it."""
import json
import os
import random
import re
import signal

from exposition import labels_in, names_in, parse
from support import expect, main, wait_until

ROOT = os.path.join(os.path.dirname(__file__), "../..")
TABLE = os.path.join(ROOT, "server/gateway/METRICS.md")
DASHBOARD = os.path.join(ROOT, "tools/deploy/grafana/kith.json")
ALERTS = os.path.join(ROOT, "tools/deploy/prometheus/alerts.yml")
# Of Prometheus itself, about each target.
SCRAPED = {"up": {"job", "instance"}}
live = {}


def described():
    """name -> (type, labels, needs kithd) of METRICS.md."""
    with open(TABLE, encoding="utf-8") as f:
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*?) ?\| (.+?) \|(?: (kithd)? ?\|)?$", f.read(), re.M)
    table = {name: (kind, frozenset(label.strip() for label in labels.split(",") if label.strip()), needs) for name, kind, labels, _, needs in rows}
    assert len(rows) == len(table) > 60, len(rows)
    return table


def scrape(m, path="/metrics"):
    answer = expect(m.get(path), 200)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.body.decode())


def every_metric_is_described_as_it_is(m):
    live.update(scrape(m))
    table = described()
    assert set(live) == set(table), f"not in METRICS.md: {set(live) - set(table)}; not in /metrics: {set(table) - set(live)}"
    for name, family in live.items():
        kind, labels, _ = table[name]
        assert family.kind == kind, (name, family.kind)
        if name.startswith("kith_gateway_grpc_") and not family.samples:
            continue  # nobody has called by gRPC; gateway.grpc looks at them
        assert family.samples, f"{name} has no sample"
        assert family.labels() == {labels}, (name, family.labels(), labels)
    assert {labels["collection"] for f in live.values() for _, labels, _ in f.samples if "collection" in labels} == {"c", "filled"}
    with open(TABLE, encoding="utf-8") as f:
        text = f.read()
    for label in ("kind", "plan", "lane", "state", "generation", "target"):
        for value in {labels[label] for f in live.values() for _, labels, _ in f.samples if label in labels}:
            assert f"`{value}`" in text or value in ("search", "wide", "write", "admin", "watch"), (label, value)


def figures_are_those_of_stats(m):
    """The same moment cannot be had twice; what rests is the same."""
    stats = m.get("/collections/filled/stats").json
    of = {name: {tuple(sorted(labels.items())): v for _, labels, v in f.samples} for name, f in scrape(m).items()}
    key = (("collection", "filled"),)
    for name, value in (("kith_vectors", stats["live"]), ("kith_vectors_max", stats["slot_max"]), ("kith_epoch", stats["epoch"]),
                        ("kith_durable_epoch", stats["durable_epoch"]), ("kith_payloads", stats["payloads"]), ("kith_payload_bytes", stats["payload_bytes"]),
                        ("kith_generation", stats["generation"]), ("kith_wal_bytes_total", stats["daemon"]["wal_bytes"]),
                        ("kith_commit_groups_total", stats["daemon"]["groups"]), ("kith_changes_total", stats["daemon"]["ops"]),
                        ("kith_checkpoints_total", stats["daemon"]["checkpoints"]), ("kith_checkpoint_epoch", stats["daemon"]["checkpoint_epoch"]),
                        ("kith_checkpoint_seconds", stats["daemon"]["checkpoint_ms"] / 1e3)):
        assert of[name][key] == value, (name, of[name][key], value)
    for region in stats["memory"]["regions"]:
        for use in ("live", "dead", "resting", "pending", "free", "slack", "ahead"):
            found = of["kith_memory_bytes"][(("collection", "filled"), ("region", region["name"]), ("use", use))]
            assert found == region[use], (region["name"], use)
    flushes = {labels.get("le"): v for n, labels, v in scrape(m)["kith_wal_flush_seconds"].samples if labels["collection"] == "filled" and n.endswith("_bucket")}
    assert flushes["+Inf"] == sum(stats["daemon"]["sync_us_below_pow2"]) > 0
    total = [v for n, labels, v in scrape(m)["kith_wal_flush_seconds"].samples if labels["collection"] == "filled" and n.endswith("_sum")]
    assert total == [stats["daemon"]["sync_us_sum"] / 1e6] and stats["daemon"]["sync_us_sum"] >= stats["daemon"]["sync_us_max"] > 0
    assert of["kith_default_ef_recall_low"][key] <= of["kith_default_ef_recall"][key] <= of["kith_default_ef_recall_high"][key] <= 1


def searches_and_plans_are_counted(m):
    def plans():
        return {labels["plan"]: v for _, labels, v in scrape(m, "/metrics?of=gateway")["kith_gateway_filter_plans_total"].samples}
    before = plans()
    assert set(before) == {"walk", "scan", "walk_scan", "hops"}
    for i in range(5):
        expect(m.post("/collections/filled/search", {"vector": vector(i), "filter": "n < 10"}), 200)
    assert sum(plans().values()) == sum(before.values()) + 5
    wait_until("kithd has counted searches", lambda: m.metric("kith_search_seconds_count", collection="filled") > 0)
    assert m.metric("kith_searches_total", collection="filled") >= m.metric("kith_search_seconds_count", collection="filled")
    mean = m.metric("kith_search_seconds_sum", collection="filled") / m.metric("kith_search_seconds_count", collection="filled")
    assert 1e-7 < mean < 10, mean


def the_gateway_alone_asks_nobody(m):
    own = scrape(m, "/metrics?of=gateway")
    assert set(own) == {name for name in live if name.startswith(("kith_gateway_", "process_"))}
    assert set(scrape(m, "/metrics?of=all")) == set(live)
    expect(m.get("/metrics?of=some"), 400, "query", "of")
    assert own["process_resident_memory_bytes"].samples[0][2] > 1e6 and own["process_cpu_seconds_total"].samples[0][2] > 0


def the_parser_refuses_what_is_wrong(m):
    good = "# HELP a_total A.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n"
    parse(good)
    for wrong in (good + "a_total{b=\"c\"} 2\n", good.replace("counter", "gauge"), good.replace(' 1', ' one'), good.replace('b="c"', 'b=c'), good.replace("# TYPE a_total counter\n", ""),
                  good.replace("a_total", "a"), good[:-1], good.replace('"c"', '"c\\x"'), good + "b_total 1\n", good + "a_total 1\n", good.replace("a_total", "a_ms_total"), good.replace(" 1", " -1"),
                  '# HELP h H.\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n', '# HELP h H.\n# TYPE h histogram\nh_bucket{le="1"} 1\nh_sum 1\nh_count 1\n'):
        try:
            parse(wrong)
        except (AssertionError, AttributeError):
            continue
        raise AssertionError(f"it is taken: {wrong}")
    assert names_in('sum by (le, route) (rate(a_b{c=~"d|e_f"}[5m])) / 2e3 > on(g) group_left() h_i offset 5m') == {"a_b", "h_i"}


def usable(expression, where):
    """Every metric of it exists, with the labels that it asks for."""
    samples = {n: set(labels) for f in live.values() for n, labels, _ in f.samples}
    samples.update(SCRAPED)
    names = names_in(expression)
    assert names, f"{where}: no metric in {expression}"
    for name in names:
        assert name in samples, f"{where}: there is no metric {name}"
    for name, label in labels_in(expression):
        of = samples[name] | {"job", "instance"} if name else set().union(*(samples[n] for n in names)) | {"job", "instance"}
        assert label in of, f"{where}: {name or names} has no label {label}"


def the_dashboard_has_only_what_there_is(m):
    with open(DASHBOARD, encoding="utf-8") as f:
        dashboard = json.load(f)
    assert dashboard["title"] and dashboard["uid"] == "kith" and dashboard["schemaVersion"] >= 36
    panels = [p for p in dashboard["panels"] if p["type"] != "row"]
    assert len({p["id"] for p in dashboard["panels"]}) == len(dashboard["panels"]) and len(panels) >= 12
    used, places = set(), set()
    for panel in panels:
        assert panel["title"] and panel["targets"] and panel["description"], panel["id"]
        assert panel["datasource"]["uid"] == "${datasource}" and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        g = panel["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert g["x"] + g["w"] <= 24 and not cells & places, f"{panel['title']} lies over another"
        places |= cells
        for target in panel["targets"]:
            usable(target["expr"].replace("$__rate_interval", "5m"), panel["title"])
            used |= names_in(target["expr"])
            for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
                assert label in target["expr"] or any(label in labels for f in live.values() for n, labels, _ in f.samples if n in target["expr"]), (panel["title"], label)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            of = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            usable(of[1], "variable " + variable["name"])
            usable(f"sum by ({of[2]}) ({of[1]})", "variable " + variable["name"])
    defined = {v["name"] for v in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)\}?", json.dumps(dashboard))) <= defined | {"__rate_interval", "__all"}, "a variable that is not defined"
    print(f"        {len(panels)} panels of {len(used)} metrics")


def alerts():
    """The rules of the file: [{alert, expr, for, labels, annotations}]. It keeps to a small part of YAML, which is read here."""
    rules, group = [], None
    with open(ALERTS, encoding="utf-8") as f:
        lines = [line.rstrip() for line in f if line.strip() and not line.lstrip().startswith("#")]
    assert lines[0] == "groups:"
    into = None
    for line in lines[1:]:
        m = re.fullmatch(r"( *)(- )?(\w+):(?: (.+))?", line)
        assert m, f"not in the part of YAML that this file keeps to: {line}"
        indent, dash, key, value = len(m[1]), m[2], m[3], m[4]
        value = value[1:-1].replace("''", "'") if value and value[0] == value[-1] == "'" else value
        if indent == 2 and dash and key == "name":
            group = value
        elif indent == 4 and key == "rules":
            assert group and value is None
        elif indent == 6 and dash and key == "alert":
            rules.append({"alert": value})
            into = rules[-1]
        elif indent == 8 and not dash:
            into = rules[-1]
            if value is None:
                into = rules[-1][key] = {}
            else:
                into[key] = value
        elif indent == 10 and not dash and value:
            into[key] = value
        else:
            raise AssertionError(f"at a strange place: {line}")
    return rules


def the_alerts_have_only_what_there_is(m):
    rules = alerts()
    assert len(rules) >= 6 and len({r["alert"] for r in rules}) == len(rules)
    for rule in rules:
        usable(rule["expr"], rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule["for"]) and rule["labels"]["severity"] in ("warning", "critical"), rule
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], rule
        assert re.search(r"[<>]=?|==|absent", rule["expr"]), rule
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        there = {label for f in live.values() for n, labels, _ in f.samples if n in names_in(rule["expr"]) for label in labels} | {"job", "instance"}
        assert used <= there, (rule["alert"], used - there)


def without_kithd_the_rest_stays(m):
    table = described()
    m.kithd.send_signal(signal.SIGTERM)
    assert m.kithd.wait(60) == 0
    left = scrape(m)
    assert left["kith_up"].samples[0][2] == 0
    for name, (_, _, needs) in table.items():
        if name.startswith("kith_gateway_grpc_"):
            continue
        assert (name in left and bool(left[name].samples)) == (not needs), f"{name}: {'there' if needs else 'missing'} without kithd"


def vector(seed):
    source = random.Random(seed)
    return [source.gauss(0, 1) for _ in range(6)]


def set_up(m):
    m.start_kithd("recall_share = 100\n")
    m.start_gateway()
    m.writable()
    for name in ("c", "filled"):
        expect(m.ask("PUT", "/collections/" + name, {"dim": 6, "metric": "l2"}), 201)
        expect(m.post(f"/collections/{name}/upsert", {"points": [{"id": str(i), "vector": vector(i), "metadata": {"n": i}} for i in range(300)]}), 200)
        expect(m.post(f"/collections/{name}/checkpoints", {}), 200)
        expect(m.post(f"/collections/{name}/search", {"vector": vector(1)}), 200)
        wait_until("recall is measured", lambda name=name: m.metric("kith_sampled_recall", collection=name) > 0)
        wait_until("readers are counted", lambda name=name: m.metric("kith_readers", collection=name) > 0)


main([every_metric_is_described_as_it_is, figures_are_those_of_stats, searches_and_plans_are_counted, the_gateway_alone_asks_nobody,
      the_parser_refuses_what_is_wrong, the_dashboard_has_only_what_there_is, the_alerts_have_only_what_there_is, without_kithd_the_rest_stays], set_up)
