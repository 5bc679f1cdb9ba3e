"""A headless Chromium for a test, driven by WebDriver over plain HTTP: Debian's chromium and chromium-driver, nothing else.

Every wait has a deadline. What the browser itself complains of (errors of scripts, breaches of the page's policy, requests that failed) is
in complaints().
"""
import base64
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile

from support import PATIENCE, SLOWNESS, wait_until

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Shift": "\ue008", "Space": " ", "ArrowDown": "\ue015", "ArrowUp": "\ue013", "ArrowRight": "\ue014",
        "ArrowLeft": "\ue012", "End": "\ue010", "Home": "\ue011"}


def missing():
    """What is not installed, or nothing."""
    return [name for name in ("chromium", "chromedriver") if not shutil.which(name)]


class Browser:
    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="kith-browser-test-")
        self.driver = self.session = None
        with open(os.path.join(self.home, "driver.log"), "wb") as log:
            self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                           env={**os.environ, "HOME": self.home, "TMPDIR": self.home})
        self.port = int(wait_until("chromedriver listens", self._port)[1])
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server", "--hide-scrollbars",
                     "--force-color-profile=srgb", "--window-size=1280,900", "--user-data-dir=" + os.path.join(self.home, "profile")]
        capabilities = {"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"},
                        "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": arguments}}
        self.session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]

    def _port(self):
        assert self.driver.poll() is None, "chromedriver has ended"
        with open(os.path.join(self.home, "driver.log"), encoding="utf-8", errors="replace") as log:
            return re.search(r"started successfully on port (\d+)", log.read())

    def _ask(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOWNESS)
        try:
            c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
            r = c.getresponse()
            value = json.loads(r.read())["value"]
        finally:
            c.close()
        assert r.status == 200, f"WebDriver {path}: {value.get('error')}: {value.get('message')}"
        return value

    def _in_session(self, method, path, body=None):
        return self._ask(method, f"/session/{self.session}{path}", body)

    def end(self):
        if self.session:
            try:
                self._in_session("DELETE", "")
            except (OSError, AssertionError):
                pass
        if self.driver:
            self.driver.terminate()
            try:
                self.driver.wait(20)
            except subprocess.TimeoutExpired:
                self.driver.kill()
                self.driver.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def cdp(self, command, **parameters):
        """A command of the DevTools protocol."""
        return self._in_session("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def go(self, url):
        self._in_session("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self._in_session("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, css):
        """What a person reads there, or None."""
        return self.run("const e = document.querySelector(arguments[0]); return e && e.checkVisibility() ? e.innerText : null", css)

    def texts(self, css):
        return self.run("return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).map(e => e.innerText)", css)

    def until(self, what, script, *arguments, patience=PATIENCE):
        return wait_until(what, lambda: self.run(script, *arguments), patience)

    def until_text(self, css, pattern, patience=PATIENCE):
        """Until the text there matches. The match."""
        try:
            return wait_until(f"{css} says {pattern}", lambda: re.search(pattern, self.text(css) or ""), patience)
        except AssertionError as e:
            raise AssertionError(f"{e}; it says {self.text(css)!r}") from e

    def click(self, css):
        found = self._in_session("POST", "/element", {"using": "css selector", "value": css})
        self._in_session("POST", f"/element/{found[ELEMENT]}/click", {})

    def type(self, css, text):
        """In place of what is there."""
        found = self._in_session("POST", "/element", {"using": "css selector", "value": css})
        self._in_session("POST", f"/element/{found[ELEMENT]}/clear", {})
        if text:
            self._in_session("POST", f"/element/{found[ELEMENT]}/value", {"text": text})

    def press(self, *keys, shift=False):
        """Keys of the keyboard, one after the other: names of KEYS, or text."""
        actions = []
        for key in keys:
            for char in [KEYS[key]] if key in KEYS else key:
                actions += [{"type": "keyDown", "value": char}, {"type": "keyUp", "value": char}]
        if shift:
            actions = [{"type": "keyDown", "value": KEYS["Shift"]}, *actions, {"type": "keyUp", "value": KEYS["Shift"]}]
        self._in_session("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def screen(self, width, height, dark=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def complaints(self):
        """Errors and warnings of the console since the last look."""
        return [line["message"] for line in self._in_session("POST", "/se/log", {"type": "browser"}) if line["level"] in ("SEVERE", "WARNING")]

    def shoot(self, name):
        """The whole page as a picture, where KITH_TEST_SHOTS names a directory for people who want to look."""
        if os.environ.get("KITH_TEST_SHOTS"):
            self.run("scrollTo(0, 0)")
            data = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
            with open(os.path.join(os.environ["KITH_TEST_SHOTS"], name + ".png"), "wb") as f:
                f.write(base64.b64decode(data))
