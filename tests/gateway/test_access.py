"""Who may do what: keys, and without them neither pages in browsers nor other machines."""
import os
import subprocess

from support import expect, main

WRITER, READER, ONE = "w" * 32, "r" * 32, "o" * 16
KEYS = f"""
# name rights collections key
writer write *      {WRITER}
reader read  *      {READER}
one    write a,notes {ONE}
"""


def bearer(key):
    return {"Authorization": "Bearer " + key}


def keys_decide_about_each_call(m):
    search = {"vector": [1, 0]}
    expect(m.post("/collections/a/search", search), 401, "key")
    assert m.get("/collections").headers["WWW-Authenticate"] == "Bearer"
    for wrong in ({"Authorization": "Basic abc"}, bearer("x" * 32), bearer(READER + "r"), bearer(READER[:-1]), bearer(""), {"X-API-Key": "no"},
                  {"Authorization": "Bearer " + READER, "X-API-Key": WRITER}, bearer("k" * 5000)):
        expect(m.post("/collections/a/search", search, headers=wrong), 401, "key")
    for right in (bearer(READER), {"X-API-Key": READER}, {"Authorization": "bearer " + READER}, bearer(WRITER), bearer(ONE)):
        expect(m.post("/collections/a/search", search, headers=right), 200)
    point = {"points": [{"id": "k", "vector": [1, 1]}]}
    expect(m.post("/collections/a/upsert", point, headers=bearer(READER)), 403, "rights")
    expect(m.ask("DELETE", "/collections/a", headers=bearer(READER)), 403, "rights")
    expect(m.post("/collections/a/upsert", point, headers=bearer(ONE)), 200)
    expect(m.post("/collections/b/search", search, headers=bearer(ONE)), 403, "rights")
    expect(m.ask("PUT", "/collections/otes", {"dim": 2, "metric": "l2"}, headers=bearer(ONE)), 403, "rights")
    assert m.get("/collections", headers=bearer(ONE)).json["collections"] == ["a"]
    assert m.get("/collections", headers=bearer(READER)).json["collections"] == ["a", "b"]
    expect(m.get("/metrics", headers=bearer(ONE)), 403, "rights")
    expect(m.get("/metrics", headers=bearer(READER)), 200)
    for path in ("/livez", "/readyz", "/health", "/openapi.json", "/"):
        assert WRITER not in expect(m.get(path), 200).body.decode()
    assert "key=one " in m.log()
    for key in (WRITER, READER, ONE):
        assert key not in m.log(), "a key is in the log"
    # With keys a page of another site has to know one.
    expect(m.post("/collections/a/search", search, headers={**bearer(READER), "Origin": "https://example.org"}), 200)


def without_keys_browsers_and_names_are_refused(m):
    m.stop_gateway()
    m.start_gateway()
    for headers in ({"Origin": "https://example.org"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
                    {"Host": "example.org"}, {"Host": "example.org:8080"}, {"Host": "127.example.org"}, {"Host": "localhost.example.org"},
                    {"Host": "[::1].example.org"}, {"Host": "127.0.0.1.example.org"}):
        expect(m.get("/livez", headers=headers), 403, "stranger")
        expect(m.post("/collections/a/search", {"vector": [1, 0]}, headers=headers), 403, "stranger")
    for headers in ({"Sec-Fetch-Site": "none"}, {"Host": "localhost"}, {"Host": "LOCALHOST:80"}, {"Host": "127.1.2.3:8080"}, {"Host": "[::1]:8080"}):
        expect(m.get("/livez", headers=headers), 200)


def the_page_of_the_gateway_itself_may_read(m):
    # A link on another site's page leads to it; what that page asks for itself is refused as ever.
    expect(m.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}), 200)
    own = {"Origin": f"http://127.0.0.1:{m.port}", "Sec-Fetch-Site": "same-origin"}
    search = {"vector": [1, 0]}
    expect(m.post("/collections/a/search", search, headers=own), 200)
    expect(m.get("/metrics?of=gateway", headers=own), 200)
    for headers in ({**own, "Sec-Fetch-Site": "cross-site"}, {**own, "Origin": "http://127.0.0.1:1"}, {**own, "Origin": "http://example.org"},
                    {"Host": "example.org", "Origin": "http://example.org"}):
        expect(m.post("/collections/a/search", search, headers=headers), 403, "stranger")
    for method, path, body in (("PUT", "/collections/new", {"dim": 1, "metric": "l2"}), ("DELETE", "/collections/a", None),
                               ("POST", "/collections/a/upsert", {"points": [{"id": "k", "vector": [1, 1]}]})):
        expect(m.ask(method, path, body, headers=own), 403, "stranger")


def bad_options_are_told(m):
    def run(*options):
        return subprocess.run([os.environ["KITH_TEST_GATEWAY"], "--run", m.run, "--port", "0", *options], capture_output=True, text=True,
                              timeout=20, check=False)

    made = []

    def conf(text, mode=0o600):
        made.append(text)
        name = f"bad{len(made)}"
        with open(m.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(m.path(name), mode)
        return m.path(name)
    for options, status, text in (
            (["--listen", "0.0.0.0"], 2, "--keys FILE, or --no-keys"), (["--listen", "::"], 2, "--no-keys"), (["--port", "70000"], 2, "--port"),
            (["--what"], 2, "--what"), (["--threads"], 2, "--threads"), (["extra"], 2, "extra"), (["--config", conf("colour = 1\n")], 2, "colour"),
            (["--config", conf("body_mib = 0\n")], 2, "body_mib"), (["--config", conf("answer_mib = 9\nanswers_mib = 8\n")], 2, "answers_mib"),
            (["--keys", m.path("none")], 1, "none"), (["--keys", conf(KEYS, 0o644)], 1, "chmod"),
            (["--keys", conf("a read * short\n")], 1, "16 to 128"), (["--keys", conf("a delete * " + WRITER)], 1, "neither read nor write"),
            (["--keys", conf("a read a..b " + WRITER)], 1, "third word"), (["--keys", conf("# none\n")], 1, "no key"),
            (["--keys", conf(f"a read * {WRITER}\nb read * {WRITER}\n")], 1, ":2: its name or its key is there twice"),
            (["--keys", conf(KEYS), "--no-keys"], 2, "either --keys or --no-keys"), (["--listen", "no.such.address.invalid", "--no-keys"], 1, "address")):
        r = run(*options)
        assert r.returncode == status and text in r.stderr, (options, r)
        assert WRITER not in r.stderr
    assert run("--version").stdout.startswith("kith-gateway ") and "--listen" in run("--help").stdout


def set_up(m):
    m.start_kithd()
    with open(m.path("keys"), "w", encoding="utf-8") as f:
        f.write(KEYS)
    os.chmod(m.path("keys"), 0o600)
    m.start_gateway("--keys", m.path("keys"))
    m.writable()
    for name in ("a", "b"):
        expect(m.ask("PUT", "/collections/" + name, {"dim": 2, "metric": "l2"}, headers=bearer(WRITER)), 201)


main([keys_decide_about_each_call, bad_options_are_told, without_keys_browsers_and_names_are_refused, the_page_of_the_gateway_itself_may_read], set_up)
