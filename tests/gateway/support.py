"""kithd and kith-gateway for a test: started in directories of their own, ended with it, their logs shown when it fails.

The programs are named by KITH_TEST_KITHD and KITH_TEST_GATEWAY (CMake sets them). Every wait has a deadline; there are no sleeps but
between two looks at a condition.
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

SLOWNESS = float(os.environ.get("KITH_TEST_SLOWNESS", "1"))
PATIENCE = 30 * SLOWNESS


def wait_until(what, condition, patience=PATIENCE):
    """The first true value of condition()."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience:.0f} s: {what}")
        time.sleep(0.005)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The code of a refusal."""
        return self.json["error"]["code"]

    def __repr__(self):
        return f"{self.status} {self.body[:400]!r}"


class Machine:
    """A run directory, kithd, and a gateway."""

    def __init__(self):
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.data = tempfile.mkdtemp(prefix="kith-gateway-test-")
        self.run = tempfile.mkdtemp(prefix="kith-gateway-test-", dir=shm)
        self.kithd = self.gateway = None
        self.port = self.grpc_port = 0

    def path(self, name):
        return os.path.join(self.data, name)

    def start_kithd(self, config=""):
        with open(self.path("kithd.conf"), "w", encoding="utf-8") as conf:
            conf.write(config)
        with open(self.path("kithd.log"), "ab") as log:
            self.kithd = subprocess.Popen([os.environ["KITH_TEST_KITHD"], "--data", self.path("data"), "--run", self.run,
                                           "--config", self.path("kithd.conf")], stderr=log, stdin=subprocess.DEVNULL)

    def start_gateway(self, *options, config=""):
        log_path = self.path("gateway.log")
        conf_path = self.path("gateway.conf")
        with open(conf_path, "w", encoding="utf-8") as conf:
            conf.write(config)
        before = os.path.getsize(log_path) if os.path.exists(log_path) else 0
        with open(log_path, "ab") as log:
            self.gateway = subprocess.Popen([os.environ["KITH_TEST_GATEWAY"], "--run", self.run, "--port", "0", "--grpc-port", "0",
                                             "--config", conf_path, *options], stderr=log, stdin=subprocess.DEVNULL)

        def port():
            assert self.gateway.poll() is None, "kith-gateway has ended"
            with open(log_path, encoding="utf-8") as log:
                log.seek(before)
                return re.search(r"event=listening .*? port=(\d+) grpc_port=(\d+)", log.read())
        self.port, self.grpc_port = map(int, wait_until("kith-gateway listens", port).groups())

    def log(self):
        with open(self.path("gateway.log"), encoding="utf-8") as log:
            return log.read()

    def connect(self, patience=PATIENCE):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)

    def ask(self, method, path, body=None, headers=None, connection=None, patience=PATIENCE):
        """One request; body: bytes as they are, anything else as JSON."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None and not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
        c = connection or self.connect(patience)
        try:
            c.request(method, path, body, headers)
            r = c.getresponse()
            return Answer(r.status, r.headers, r.read())
        finally:
            if not connection:
                c.close()

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.ask("POST", path, body, **more)

    def raw(self, data, pieces=None, patience=PATIENCE, half_close=False):
        """Send bytes as they are; everything that comes back until the gateway closes or has answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience) as s:
            for piece in pieces or [data]:
                s.sendall(piece)
            if half_close:
                s.shutdown(socket.SHUT_WR)
            return read_all(s)

    def writable(self):
        wait_until("kithd serves", lambda: self.get("/health").json.get("writable"))

    def metric(self, name, **labels):
        """The value of a line of /metrics, 0 when it is not there."""
        for line in self.get("/metrics").body.decode().splitlines():
            m = re.fullmatch(r'([a-z_]+)(?:\{(.*)\})? (\S+)', line)
            if m and m[1] == name and all(f'{k}="{v}"' in (m[2] or "") for k, v in labels.items()):
                return float(m[3])
        return 0.0

    def memory_kib(self):
        with open(f"/proc/{self.gateway.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])

    def stop_gateway(self, patience=PATIENCE):
        self.gateway.send_signal(signal.SIGTERM)
        status = self.gateway.wait(patience)
        self.gateway = None
        assert status == 0, f"kith-gateway ended with {status}"

    def end(self):
        for process in (self.gateway, self.kithd):
            if process and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.run, ignore_errors=True)

    def show_logs(self):
        for name in ("kithd.log", "gateway.log"):
            if os.path.exists(self.path(name)):
                with open(self.path(name), encoding="utf-8", errors="replace") as log:
                    print(f"--- {name}", "".join(log.readlines()[-40:]), sep="\n", file=sys.stderr)


def read_all(s):
    data = b""
    try:
        while piece := s.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def expect(answer, status, code=None, where=None):
    """The status, and of a refusal its shape, code and place."""
    assert answer.status == status, f"{status} was expected: {answer}"
    assert answer.headers["X-Request-Id"], "an answer without X-Request-Id"
    if status >= 400 and answer.headers["Content-Length"] != "0" and answer.body:
        error = answer.json["error"]
        assert error["code"] and error["message"] and answer.json["request_id"] == answer.headers["X-Request-Id"], answer
        assert code is None or error["code"] == code, answer
        assert where is None or error.get("where") == where, answer
        if status in (429, 503):
            assert int(answer.headers["Retry-After"]) >= 1, answer
    return answer


def main(tests, set_up):
    """Run the tests, which are functions of a Machine, after each other; KITH_TEST_ONLY names one."""
    only = os.environ.get("KITH_TEST_ONLY")
    machine, failed = Machine(), 0
    try:
        set_up(machine)
        for test in tests:
            if only and test.__name__ != only:
                continue
            began = time.monotonic()
            try:
                test(machine)
                print(f"ok      {test.__name__} ({time.monotonic() - began:.2f} s)", flush=True)
            except Exception:  # whatever it is, the next test may tell more
                failed += 1
                print(f"FAILED  {test.__name__}", flush=True)
                traceback.print_exc()
            if machine.gateway and machine.gateway.poll() is not None:
                print(f"FAILED  kith-gateway has ended with {machine.gateway.returncode}", flush=True)
                failed += 1
                break
        if machine.gateway and not failed:
            machine.stop_gateway()
    except Exception:
        failed += 1
        traceback.print_exc()
    if failed:
        machine.show_logs()
    machine.end()
    print(f"{failed} failed")
    sys.exit(failed > 0)
