"""The status page, in a headless Chromium: what a person sees of a live kithd, and does with a keyboard, on a phone and at a desk.

Exit status 77, which CTest counts as skipped, where there is no Chromium. KITH_TEST_SHOTS=DIR keeps pictures of what the tests saw.
"""
import base64
import hashlib
import os
import random
import re
import signal
import sys

from browser import Browser, missing
from support import PATIENCE, expect, main, wait_until

DIM, MANY = 8, 100
HOSTILE = '<img src=x onerror="hacked=1">\u202egnp exe'
KEY, ONE = "k" * 20, "o" * 20
browser = None


def vector(seed):
    source = random.Random(seed)
    return [round(source.gauss(0, 1), 4) for _ in range(DIM)]


def points(first, n):
    return {"points": [{"id": f"doc-{i}", "vector": vector(i), "metadata": {"lang": "en" if i % 2 else "de", "number": i}} for i in range(first, first + n)]}


def url(m, path="/"):
    return f"http://127.0.0.1:{m.port}{path}"


def open_page(m, path="/", width=1280, height=900, dark=False):
    browser.screen(width, height, dark)
    browser.go("about:blank")
    browser.go(url(m, path))


def docs(m):
    """The collection that most tests look at."""
    if "docs" not in m.get("/collections").json["collections"]:
        expect(m.ask("PUT", "/collections/docs", {"dim": DIM, "metric": "cosine"}), 201)
    expect(m.post("/collections/docs/upsert", points(0, 400)), 200)


def open_docs(m, **more):
    """Its page, once it has figures."""
    docs(m)
    open_page(m, "/#docs", **more)
    browser.until_text("#t-vectors", "^4")


def quiet():
    """Nothing in the console."""
    found = browser.complaints()
    assert not found, found


def number(text):
    return int(re.sub(r"[^0-9]", "", text))


def no_sideways_scrolling():
    wide = browser.run("""
        const w = document.documentElement.clientWidth;
        return document.documentElement.scrollWidth > w || document.body.scrollWidth > w
            ? [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > w + 1).map(e => e.tagName + '.' + e.className + '#' + e.id) : []""")
    assert not wide, wide


def the_page_is_one_file_under_a_policy(m):
    answer = expect(m.get("/"), 200)
    page, policy = answer.body.decode(), answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8" and answer.headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy, policy
    for tag in ("style", "script"):
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        assert len(inside) == 1 and len(re.findall(f"<{tag}[ >]", page)) == 1
        assert f"'sha256-{base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()}'" in policy, tag
    assert not re.findall(r'\b(?:src|href)="(?!#|data:)', page) and not re.search(r'\bon\w+="|\bstyle="|@import|url\(', page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage|sessionStorage|document\.cookie", page)
    expect(m.get("/?a=b"), 400, "query")
    expect(m.post("/", {}), 405)
    assert "Content-Security-Policy" not in m.get("/livez").headers


def without_collections_it_says_how_to_make_one(m):
    for width, dark in ((1280, False), (360, True)):
        open_page(m, width=width, height=720, dark=dark)
        browser.until_text("#state", "^live$")
        browser.until_text("#empty", "No collections yet")
        assert url(m, "/collections/docs") in browser.text("#empty-how")
        assert browser.text("#columns") is None
        no_sideways_scrolling()
        browser.shoot(f"empty-{width}")
    quiet()


def it_shows_the_figures_of_a_live_kithd(m):
    open_page(m)
    browser.until_text("#state", "^live$")
    docs(m)
    browser.until_text("#d-name", "^docs$")  # by itself
    expect(m.post("/collections/docs/checkpoints", {}), 200)
    open_page(m, "/#docs")
    browser.until_text("#t-vectors", "^400$")
    stats = m.get("/collections/docs/stats").json
    assert browser.text("#d-form").startswith(f"{DIM} dimensions \u00b7 cosine")
    assert number(browser.until_text("#e-now", r"\d")[0]) <= stats["epoch"] and browser.text("#e-generation") == str(stats["generation"])
    regions = [text.split("\n")[0] for text in browser.texts("#m-regions span:first-child")]
    assert sorted(regions) == sorted(r["name"] for r in stats["memory"]["regions"] if r["taken"] + r["ahead"] > 0), regions
    assert re.fullmatch(r"[\d.]+\s(KiB|MiB)", browser.text("#t-memory")), browser.text("#t-memory")
    assert browser.text("#c-age").endswith("ago") and browser.text("#c-failures") == "0" and re.search(r"B$", browser.text("#w-bytes"))
    assert all(re.search(r"^[\d.]+\s.?s$", browser.text(i)) for i in ("#w-flush", "#w-flush99")), browser.text("#w-flush")
    # Recall is measured by kithd beside its other work: the page has what the call has.
    wait_until("recall is measured", lambda: m.get("/collections/docs/stats").json["recall"]["points"])
    browser.until_text("#r-now", r"^[01]\.\d\d\d$")
    assert re.search(r"^[01]\.\d{3} . [01]\.\d{3}$", browser.text("#r-interval")) and browser.run("return document.querySelector('#r-value').getAttribute('d')")
    # Searches are timed by the programs that search, which is the gateway here.
    for i in range(200):
        m.post("/collections/docs/search", {"vector": vector(i)})
    browser.until_text("#l-p50", "s$")
    assert browser.run("return document.querySelectorAll('#l-bars i').length") >= 12
    browser.until_text("#g-p50", "s$")
    assert number(browser.text("#t-searches-under").split(" by ")[0]) > 0
    quiet()
    shifts = browser.run("""
        return new Promise(done => { new PerformanceObserver((list, o) => { o.disconnect(); done(list.getEntries().filter(e => !e.hadRecentInput).map(e =>
            [e.value, ...e.sources.map(s => s.node && (s.node.id || s.node.className || s.node.nodeName))])); }).observe({ type: 'layout-shift', buffered: true });
            setTimeout(() => done([]), 300); })""")
    assert sum(shift[0] for shift in shifts) < 0.1, f"the layout has shifted: {shifts}"


def it_changes_while_the_collection_does(m):
    open_docs(m)
    expect(m.post("/collections/docs/upsert", points(400, 50)), 200)
    browser.until_text("#t-vectors", "^450$")
    browser.until_text(".row[data-name=docs]", "450")
    total = iter(range(10**6))
    wait_until("a rate is shown", lambda: m.post("/collections/docs/upsert", points(next(total) % 50, 20)) and re.search(r"[1-9]", browser.text("#t-ingest") or ""))
    browser.until("a line is drawn", "return document.querySelectorAll('#t-ingest-line polyline').length === 1")
    quiet()


def a_paused_or_hidden_page_asks_for_nothing(m):
    open_docs(m)
    # Count what it asks for from inside of it.
    browser.run("window.count = 0; const was = window.fetch; window.fetch = (...a) => { window.count++; return was(...a); }")
    browser.until("it asks", "return window.count > 0")

    def rests(while_what):
        browser.until("the last answers are in", "const n = window.count; return new Promise(done => setTimeout(() => done(window.count === n), 400))")
        before = browser.run("return window.count")
        browser.run("return new Promise(done => setTimeout(done, 3000))")
        assert browser.run("return window.count") == before, while_what
    browser.click("#pause")
    assert browser.text("#pause") == "Resume" and browser.run("return document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
    browser.until_text("#state", r"^paused at \d\d:\d\d:\d\d$")
    rests("paused")
    browser.click("#pause")
    browser.until_text("#state", "^live$")
    browser.run("Object.defineProperty(document, 'hidden', { value: true, configurable: true }); document.dispatchEvent(new Event('visibilitychange'))")
    rests("hidden")
    before = browser.run("return window.count")
    browser.run("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    browser.until("it asks again", "return window.count > arguments[0]", before)


def search_by_id_by_vector_and_with_a_filter(m):
    open_docs(m)
    browser.type("#s-like", "doc-7")
    browser.click("#s-go")
    said = browser.until_text("#s-said", r"(\d+) results in .* epoch ([\d,]+)")
    assert said[1] == "10", said
    expected = [h["id"] for h in m.post("/collections/docs/search", {"like": "doc-7"}).json["results"]]
    assert browser.texts(".hit .id") == expected, (browser.texts(".hit .id"), expected)
    assert '"lang"' in browser.texts(".hit summary")[0] and len(browser.texts(".hit .score")) == 10
    browser.click(".hit summary")
    browser.until_text(".hit pre", '"number": ')
    # By vector, with a filter, exact: that of an id finds it.
    browser.click(".ways label:nth-of-type(2)")
    browser.type("#s-vector", "[" + ", ".join(map(str, vector(12))) + "]")
    assert browser.text("#s-vector-hint") == f"{DIM} of {DIM} numbers"
    browser.type("#s-filter", 'lang = "de"')
    browser.type("#s-k", "3")
    browser.run("const s = document.querySelector('#s-how'); s.value = 'exact'; s.dispatchEvent(new Event('change'))")
    browser.click("#s-go")
    browser.until_text("#s-said", "^3 results")
    hits = browser.texts(".hit .id")
    assert hits[0] == "doc-12" and all(int(h[4:]) % 2 == 0 for h in hits), hits
    # By a recall.
    browser.run("const s = document.querySelector('#s-how'); s.value = 'recall'; s.dispatchEvent(new Event('change'))")
    browser.type("#s-target", "0.9")
    browser.type("#s-filter", "")
    browser.click("#s-go")
    browser.until("it was asked for", "return performance.getEntriesByType('resource').filter(e => e.name.endsWith('/search')).length >= 3")
    browser.until_text("#s-said", "^3 results")
    # What is like a result.
    second = browser.texts(".hit .id")[1]
    browser.click(".hit:nth-child(2) .button")
    browser.until("by its id", "return document.querySelector('#s-like').value === arguments[0]", second)
    expected = [h["id"] for h in m.post("/collections/docs/search", {"like": second, "top_k": 3, "target_recall": 0.9}).json["results"]]
    wait_until("what is near to it is shown", lambda: browser.texts(".hit .id") == expected)
    quiet()
    browser.shoot("search-1280")


def what_is_wrong_is_said_at_its_place(m):
    open_docs(m)

    def invalid():
        return browser.run("return [...document.querySelectorAll('[aria-invalid=true]')].map(e => e.id)")
    browser.click("#s-go")
    browser.until_text("#s-error", "Which id")
    assert invalid() == ["s-like"] and browser.run("return document.activeElement.id") == "s-like"
    browser.type("#s-like", "nobody")
    browser.click("#s-go")
    browser.until_text("#s-error", "no such|not there|no vector|not found|there is no")
    assert invalid() == ["s-like"], invalid()
    browser.type("#s-like", "doc-1")
    browser.type("#s-filter", "lang = = 3")
    browser.click("#s-go")
    browser.until("the filter is marked", "return document.querySelector('#s-filter').getAttribute('aria-invalid') === 'true'")
    assert browser.text("#s-error"), "no sentence"
    browser.shoot("error-1280")
    browser.type("#s-filter", "")
    browser.click(".ways label:nth-of-type(2)")
    browser.type("#s-vector", "1 2 x")
    assert "no number" in browser.text("#s-vector-hint")
    browser.type("#s-vector", "1, 2, 3")
    assert browser.text("#s-vector-hint") == f"3 of {DIM} numbers"
    browser.click("#s-go")
    browser.until_text("#s-error", f"3 dimensions.*{DIM}")
    assert invalid() == ["s-vector"] and browser.texts(".hit") == []
    browser.complaints()  # refusals are in the console, too


def names_and_payloads_are_text(m):
    docs(m)
    payload = {"title": "</script><script>window.hacked=2</script>", HOSTILE: [HOSTILE, "b"], "link": {"a": "javascript:window.hacked=3"}, "long": "x" * 3000}
    expect(m.post("/collections/docs/upsert", {"points": [{"id": HOSTILE, "vector": vector(7), "metadata": payload},
                                                         {"id": "l" * 500, "vector": vector(7), "metadata": {"deep": {"er": {"est": [1, 2, 3]}}}}]}), 200)
    for width in (1280, 360):
        open_docs(m, width=width, dark=width == 360)
        browser.type("#s-like", "doc-7")
        browser.click("#s-go")
        browser.until_text("#hits", "img src")
        assert HOSTILE in browser.run("return [...document.querySelectorAll('.hit .id')].map(e => e.textContent)")
        browser.run("for (const d of document.querySelectorAll('.hit details')) d.open = true")
        assert browser.run("return [window.hacked || 0, document.querySelectorAll('.hits img, .hits script, .hits a').length]") == [0, 0]
        assert payload["title"] in browser.run("return document.querySelector('#hits').textContent").replace("\\", "")
        no_sideways_scrolling()
        browser.shoot(f"hostile-{width}")
    open_page(m, "/#%E0%A4%A%<b>")
    browser.until_text("#t-vectors", "^4")
    quiet()


def a_keyboard_is_enough(m):
    docs(m)
    open_page(m)
    browser.until_text("#t-vectors", "^4")

    def at():
        return browser.run("const e = document.activeElement; return e.id || e.textContent.trim()")

    def focus_is_visible():
        return browser.run("""const e = document.activeElement, o = e.matches('.ways input') ? getComputedStyle(e.parentElement) : getComputedStyle(e), r = e.getBoundingClientRect();
            return o.outlineStyle !== 'none' && parseFloat(o.outlineWidth) >= 2 && r.top >= -1 && r.bottom <= innerHeight + 1""")
    browser.press("Tab")
    assert at() == "Skip to the figures" and focus_is_visible()
    browser.press("Tab")
    assert at() == "Skip to the search" and focus_is_visible()
    browser.press("Enter")
    browser.until("the search has the focus", "return document.activeElement.id === 'search'")
    seen = []
    for _ in range(8):
        browser.press("Tab")
        seen.append(at())
        assert focus_is_visible(), seen
        if seen[-1] == "s-like":
            break
    browser.press("doc-3", "Tab")
    assert at() == "s-filter" and focus_is_visible()
    browser.press("number < 100", "Enter")
    browser.until_text("#s-said", "results in")
    assert all(int(i[4:]) < 100 for i in browser.texts(".hit .id") if i.startswith("doc-"))
    browser.press("Tab", "Tab", "Tab")
    assert at() == "s-go" and focus_is_visible()
    browser.press("Tab")
    assert at() == "Like this" and focus_is_visible()
    browser.press("Tab", "Enter")  # the payload of the first result
    browser.until("it is open", "return document.querySelector('.hit details').open")
    browser.press("Tab", "Tab", shift=True)
    assert at() == "s-go"
    # By vector: radio buttons go by arrows.
    for _ in range(12):
        if browser.run("return document.activeElement.name === 'way'"):
            break
        browser.press("Tab", shift=True)
    browser.press("ArrowRight")
    assert browser.text("#by-vector") is not None and browser.text("#by-id") is None
    quiet()
    unlabelled = browser.run("""return [...document.querySelectorAll('input, select, textarea, button')].filter(e =>
        !(e.labels && e.labels.length) && !e.getAttribute('aria-label') && !e.textContent.trim()).map(e => e.id)""")
    assert not unlabelled, unlabelled
    assert browser.run("return document.documentElement.lang") == "en" and browser.run("return document.querySelectorAll('h1').length") == 1


CONTRAST = """
    const channel = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const parse = text => (/rgba?\\(([^)]+)\\)/.exec(text) || [0, '0,0,0,0'])[1].split(/[ ,/]+/).map(Number);
    const light = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
    const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > .9) return c; } return [255, 255, 255]; };
    const bad = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const e = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !e.checkVisibility() || e.closest('.quiet, .skip, script, style, noscript')) continue;
        const a = light(parse(getComputedStyle(e).color)), b = light(ground(e)), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        if (ratio < 4.5) bad.push([walker.currentNode.textContent.trim().slice(0, 40), e.className, ratio.toFixed(2)]);
    }
    return bad;
"""


def it_is_readable_in_both_schemes_and_on_a_phone(m):
    grounds = {}
    for dark in (False, True):
        for width, height in ((1280, 900), (768, 1024), (360, 740)):
            open_docs(m, width=width, height=height, dark=dark)
            browser.until_text("#l-p50", "s$")
            browser.type("#s-like", "doc-9")
            browser.click("#s-go")
            browser.until_text("#s-said", "results in")
            no_sideways_scrolling()
            bad = browser.run(CONTRAST)
            assert not bad, bad
            small = browser.run("""return [...document.querySelectorAll('button, input:not([type=radio]), select, .ways label')].filter(e => e.checkVisibility())
                .filter(e => e.getBoundingClientRect().height < 24 || e.getBoundingClientRect().width < 24).map(e => e.id || e.textContent)""")
            assert not small, small
            browser.shoot(f"docs-{width}-{'dark' if dark else 'light'}")
        grounds[dark] = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert grounds[False] != grounds[True]
    quiet()


def a_hundred_collections_are_found_by_name(m):
    docs(m)
    for i in range(MANY - 1):
        expect(m.ask("PUT", f"/collections/{'a-rather-long-name-of-a-collection-that-is-cut-off-' if i == 42 else 'c'}{i}", {"dim": 2, "metric": "l2"}), 201)
    open_page(m)
    browser.until("all rows are there", "return document.querySelectorAll('#list .row').length === arguments[0]", MANY)
    browser.until_text("#list-count", f"^{MANY}$")
    browser.until("all rows have figures", "return [...document.querySelectorAll('#list .row small:nth-of-type(1)')].every(e => e.textContent !== '')",
                  patience=4 * PATIENCE)  # a few at each look, every two seconds
    browser.until_text("#g-collections", "B$")
    browser.shoot("many-1280")
    browser.type("#find", "c77")
    assert browser.run("return [...document.querySelectorAll('#list .row')].map(e => e.dataset.name)") == ["c77"]
    browser.press("Tab", "Enter")
    browser.until_text("#d-name", "^c77$")
    browser.until_text("#t-vectors", "^0$")
    assert browser.run("return location.hash") == "#c77"
    browser.type("#find", "")
    browser.run("document.querySelector('#find').dispatchEvent(new Event('input'))")
    browser.press("Tab")
    assert browser.run("return document.activeElement.dataset.name") == "c77"
    browser.press("ArrowDown", "Enter")
    browser.until_text("#d-name", "^c78$")
    open_page(m, width=360, height=740, dark=True)
    browser.until("all rows are there", "return document.querySelectorAll('#list .row').length === arguments[0]", MANY)
    browser.until_text("#t-vectors", r"\d")
    no_sideways_scrolling()
    browser.shoot("many-360")
    # One that is dropped goes away, and what was selected gives place to another.
    expect(m.ask("DELETE", "/collections/c78"), 200)
    browser.until("its row is gone", "return document.querySelectorAll('#list .row').length === arguments[0]", MANY - 1)
    quiet()


def it_says_since_when_it_is_stale(m):
    open_docs(m)
    port = m.port
    m.stop_gateway()
    browser.until_text("#state", r"^stale since \d\d:\d\d:\d\d$")
    assert re.match("^4", browser.text("#t-vectors")), "what it knew is gone"
    browser.type("#s-like", "doc-1")
    browser.click("#s-go")
    browser.until_text("#s-error", "does not answer")
    browser.shoot("stale-1280")
    m.start_gateway("--port", str(port))
    browser.until_text("#state", "^live")
    browser.complaints()  # of requests that failed
    m.kithd.send_signal(signal.SIGTERM)
    assert m.kithd.wait(60) == 0
    browser.until_text("#state", "^live, read only$")
    browser.until_text("#d-note", "kithd does not answer")
    browser.type("#s-like", "doc-1")
    browser.click("#s-go")
    browser.until_text("#s-said", "results in")
    browser.shoot("read-only-1280")
    m.start_kithd()
    browser.until_text("#state", "^live$")
    browser.until("the note is gone", "return document.querySelector('#d-note').hidden")
    quiet()


def with_keys_it_asks_for_one_and_keeps_it_to_itself(m):
    docs(m)
    with open(m.path("keys"), "w", encoding="utf-8") as f:
        f.write(f"all read * {KEY}\none read docs {ONE}\n")
    os.chmod(m.path("keys"), 0o600)
    m.stop_gateway()
    m.start_gateway("--keys", m.path("keys"))
    open_page(m, width=360, height=740)
    browser.complaints()  # of the page before, which has lost its gateway
    browser.until("the field has the focus", "return document.activeElement.id === 'key'")
    assert browser.text("#board") is None and browser.text("#state") == "a key is needed"
    no_sideways_scrolling()
    browser.shoot("key-360")
    browser.press("short", "Enter")
    browser.until_text("#key-hint", "16 to 128")
    browser.type("#key", "w" * 20)
    browser.press("Enter")
    browser.until_text("#key-hint", "not one of those")
    browser.type("#key", KEY)
    browser.press("Enter")
    browser.until_text("#state", "^live$")
    browser.until_text("#t-vectors", "^4|^0$")
    assert browser.text("#strip") is not None
    kept = browser.run("return [document.cookie, localStorage.length, sessionStorage.length, document.documentElement.outerHTML.includes(arguments[0]), location.href.includes(arguments[0])]", KEY)
    assert kept == ["", 0, 0, False, False], kept
    # One for a single collection: that alone, and no figures of the gateway.
    browser.click("#forget")
    browser.type("#key", ONE)
    browser.press("Enter")
    browser.until("one row", "return document.querySelectorAll('#list .row').length === 1")
    browser.until_text("#t-vectors", "^4")
    browser.until("the strip is gone", "return document.querySelector('#strip').hidden")
    browser.type("#s-like", "doc-1")
    browser.click("#s-go")
    browser.until_text("#s-said", "results in")
    assert KEY not in m.log() and ONE not in m.log()
    found = [c for c in browser.complaints() if "status of 401" not in c and "status of 403" not in c]
    assert not found, found


def set_up(m):
    m.start_kithd("recall_share = 100\n")
    m.start_gateway()
    m.writable()


if missing():
    print(f"skipped: {' and '.join(missing())} not installed; tools/dev/setup.sh --tests installs chromium and chromium-driver where Debian has them")
    sys.exit(77)
browser = Browser()
try:
    main([the_page_is_one_file_under_a_policy, without_collections_it_says_how_to_make_one, it_shows_the_figures_of_a_live_kithd,
          it_changes_while_the_collection_does, a_paused_or_hidden_page_asks_for_nothing, search_by_id_by_vector_and_with_a_filter,
          what_is_wrong_is_said_at_its_place, names_and_payloads_are_text, a_keyboard_is_enough, it_is_readable_in_both_schemes_and_on_a_phone,
          a_hundred_collections_are_found_by_name, it_says_since_when_it_is_stale, with_keys_it_asks_for_one_and_keeps_it_to_itself], set_up)
finally:
    browser.end()
