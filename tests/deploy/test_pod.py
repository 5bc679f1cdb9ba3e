"""A pod: kithd in one container, readers on a read-only mount in another, kith-gateway in a third. Each has namespaces, a mount
table and a user of its own (sandbox.py); they share one tmpfs, as an emptyDir of medium Memory is one.

What is run is the root file system of the image (tools/deploy/image/rootfs.sh) with the command lines of the StatefulSet. Needs
root and is skipped without. Every wait has a deadline. KITH_TEST_ONLY names one function.
"""
import contextlib
import ctypes
import errno
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

import sandbox

SOURCE = os.environ["KITH_TEST_SOURCE"]
PROGRAMS = os.environ["KITH_TEST_PROGRAMS"]
PATIENCE = 100
SKIP = 77
KITHD_UID, GATEWAY_UID, APP_UID = 10001, 10011, 10010
READ_GROUP, WRITE_GROUP = 10002, 10003
RUN, DATA = "/run/kith/index", "/var/lib/kith/data"
IO_URING = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
CTEST_ENV = {"PATH": "/usr/bin", "KITH_RUN": RUN}


def wait_until(what, condition, patience=PATIENCE):
    """The first true value of condition()."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.01)


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def profile():
    """The system calls of tools/deploy/seccomp.json."""
    with open(os.path.join(SOURCE, "tools/deploy/seccomp.json"), encoding="utf-8") as file:
        return [name for rule in json.load(file)["syscalls"] for name in rule["names"]]


def host_has_io_uring():
    """Whether this machine lets anybody make a ring: where it does not, kithd cannot, either."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(425, 8, ctypes.byref((ctypes.c_char * 128)()))
    if fd < 0:
        return False
    os.close(fd)
    setting = read("/proc/sys/kernel/io_uring_disabled").strip()
    return setting in ("", "0")  # with 1 it is for root, which kithd is not


class Container:
    """A program in a sandbox. Its output goes to files."""

    def __init__(self, pod, name, argv, uid, gid, groups, binds, permitted=None, cgroup=None):
        self.name, self.base = name, os.path.join(pod.base, f"{name}-{pod.number()}")
        self.pid_file = self.base + ".pid"
        spec = {"root": pod.root, "argv": argv, "env": CTEST_ENV, "binds": binds, "uid": uid, "gid": gid,
                "groups": groups, "filter": permitted, "cgroup": cgroup, "pid_file": self.pid_file}
        with open(self.base + ".out", "wb") as out, open(self.base + ".err", "wb") as err:
            self.process = subprocess.Popen([sys.executable, "-B", sandbox.__file__, json.dumps(spec)],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        self.pid = int(wait_until(f"{name} is started", lambda: read(self.pid_file) or self.process.poll() and "0"))

    def out(self):
        return read(self.base + ".out")

    def err(self):
        return read(self.base + ".err")

    def wait(self, patience=PATIENCE):
        return self.process.wait(patience)

    def running(self):
        return self.process.poll() is None

    def kill(self):
        """As a runtime whose patience is over, or the OOM killer."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        assert self.wait() == 128 + signal.SIGKILL

    def stop(self):
        """As the kubelet does: SIGTERM to process 1."""
        os.kill(self.pid, signal.SIGTERM)
        status = self.wait()
        assert status == 0, f"{self.name} ended with {status} after SIGTERM"

    def logged(self, pattern):
        found = wait_until(f"{self.name} logs {pattern}",
                           lambda: re.search(pattern, self.err()) or (not self.running() and "gone"))
        assert found != "gone", f"{self.name} ended with {self.process.returncode} and has not logged {pattern}"
        return found


class Pod:
    """The volumes of a pod, and its containers."""
    count = 0

    def __init__(self, where, root, run_bytes="256m", on_disk=False):
        self.root = root
        self.base = tempfile.mkdtemp(prefix="pod-", dir=where)
        self.run, self.data = os.path.join(self.base, "run"), os.path.join(self.base, "data")
        self.on_disk = on_disk
        self.containers = []
        self.kithd = None
        for path in (self.run, self.data):
            os.mkdir(path)
        if not on_disk:
            sandbox.mount("tmpfs", self.run, "tmpfs", 0, f"size={run_bytes}")
        # As the kubelet makes volumes under fsGroup: root's, the group's, writable for it, and with the bit that hands it on.
        for path in (self.run, self.data):
            os.chown(path, 0, READ_GROUP)
            os.chmod(path, 0o2777 if path == self.run else 0o2775)

    @staticmethod
    def number():
        Pod.count += 1
        return Pod.count

    def start(self, *args, **more):
        container = Container(self, *args, **more)
        self.containers.append(container)
        return container

    def start_kithd(self, uid=KITHD_UID, ready=True, **more):
        self.kithd = self.start(
            "kithd", ["/usr/bin/kithd", "--data", DATA, "--run", RUN, "--threads", "2", "--read-group", str(READ_GROUP),
                      "--write-group", str(WRITE_GROUP)],
            uid, uid, [READ_GROUP], [[self.run, "/run/kith", False], [self.data, "/var/lib/kith", False]], **more)
        if ready:
            self.kithd.logged("event=ready")
        return self.kithd

    def start_app(self, *args, gid=APP_UID):
        return self.start("app", ["/usr/bin/kith-example-app", "demo", "--run", RUN, "--pause-ms", "1", "--report-ms", "100", *args], APP_UID, gid, [READ_GROUP],
                          [[self.run, "/run/kith", True]])

    def start_gateway(self):
        gateway = self.start("gateway", ["/usr/bin/kith-gateway", "--run", RUN, "--port", "0", "--grpc-port", "0", "--threads", "1"], GATEWAY_UID,
                             WRITE_GROUP, [READ_GROUP], [[self.run, "/run/kith", True]])
        gateway.port = int(gateway.logged(r"event=listening address=\S+ port=(\d+)")[1])
        return gateway

    def kith(self, *args, gid=WRITE_GROUP, uid=APP_UID, permitted=None, binds=()):
        """kith in a container of its own, beside the others: exit status, output and messages."""
        tool = Container(self, "kith", ["/usr/bin/kith", "--run", RUN, *args], uid, gid, [READ_GROUP],
                         [[self.run, "/run/kith", True], *binds], permitted=permitted)
        return tool.wait(), tool.out(), tool.err()

    def probe(self, *args):
        """kith in kithd's own container would be: its user, its mounts."""
        status, out, err = self.kith(*args, uid=KITHD_UID, gid=KITHD_UID)
        return status, out + err

    def fill(self, n=2000):
        filler = self.start_app("--fill", str(n), "--seconds", "1", gid=WRITE_GROUP)
        assert filler.wait() == 0, filler.err() + filler.out()

    def end(self):
        for container in self.containers:
            if container.running():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(container.pid or container.process.pid, signal.SIGKILL)
                container.process.kill()
                container.process.wait()
        if not self.on_disk:
            subprocess.run(["umount", self.run], check=False)
        shutil.rmtree(self.base, ignore_errors=True)

    def show(self):
        for container in self.containers:
            print(f"--- {container.name} ({container.process.poll()})", container.err()[-3000:], container.out()[-600:], sep="\n",
                  file=sys.stderr)


def last(container):
    """The last line that an application has printed."""
    lines = container.out().splitlines()
    return json.loads(lines[-1]) if lines else {"searches": 0}


def searched_on(app, more=50):
    """The application has searched so often again, and none of it failed."""
    before = last(app)["searches"]
    wait_until("the application searches", lambda: last(app)["searches"] >= before + more or not app.running())
    now = last(app)
    assert app.running() and now["failed"] == 0 and now["odd"] == 0, now


def ask(gateway, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None,
                           {"Content-Type": "application/json"} if body is not None else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


VECTOR = [0.5] * 64


def isolated(a, b):
    for kind in ("pid", "ipc", "mnt", "uts"):
        assert os.readlink(f"/proc/{a.pid}/ns/{kind}") != os.readlink(f"/proc/{b.pid}/ns/{kind}"), kind
    for container in (a, b):
        inside = re.search(r"NSpid:\s+(.*)", read(f"/proc/{container.pid}/status"))[1].split()
        assert inside[-1] == "1", f"{container.name} is process {inside} and not process 1"
        assert re.search(r"CapEff:\s+0+\n", read(f"/proc/{container.pid}/status")), "it has capabilities"


def restarts_cost_readers_nothing(pod, app, gateway, permitted):
    """The daemon's container is killed and started again under load, and told to stop once."""
    for how in ("kill", "kill", "stop"):
        getattr(pod.kithd, how)()
        searched_on(app)
        status, text = ask(gateway, "POST", "/collections/demo/search", {"vector": VECTOR, "top_k": 3})
        assert status == 200 and len(json.loads(text)["hits" if "hits" in text else "results"]) == 3, text
        status, text = ask(gateway, "POST", "/collections/demo/upsert", {"points": [{"id": "http", "vector": VECTOR}]})
        assert status == 503, f"{status} {text}"
        assert pod.probe("stats", "--alive")[0] == 1 and pod.probe("stats", "--ready")[0] == 1
        pod.start_kithd(permitted=permitted)
        assert pod.probe("stats", "--alive")[0] == 0 and pod.probe("stats", "--ready")[0] == 0
        searched_on(app)
        wait_until("HTTP writes", lambda: ask(gateway, "POST", "/collections/demo/upsert",
                                              {"points": [{"id": "http", "vector": VECTOR}]})[0] == 200)


def whole_pod(where, root, permitted, io):
    pod = Pod(where, root)
    try:
        kithd = pod.start_kithd(permitted=permitted)
        assert kithd.logged(r"event=start .*io=(\w+)")[1] == io, kithd.err()
        pod.fill()
        app, gateway = pod.start_app(), pod.start_gateway()
        searched_on(app)
        isolated(kithd, app)
        isolated(kithd, gateway)
        mounts = read(f"/proc/{app.pid}/mountinfo")
        assert re.search(r" /run/kith ro\b", mounts), "the application's mount is not read-only: " + mounts

        # Who is in the read group alone searches and does not write.
        assert pod.kith("count", "demo", gid=APP_UID)[1].strip() == "2000"
        status, _, err = pod.kith("delete", "demo", "1", gid=APP_UID)
        assert status == 1 and "does not allow this to your user or groups" in err, err

        restarts_cost_readers_nothing(pod, app, gateway, permitted)
        for container in (app, gateway, pod.kithd):
            container.stop()
        end = last(app)
        assert end["event"] == "end" and end["failed"] == 0 and end["odd"] == 0 and end["searches"] > 500, end
        return pod, end
    except BaseException:
        pod.show()
        raise
    finally:
        pod.end()


def with_io_uring_permitted(where, root):
    io = "uring" if host_has_io_uring() else "threads"
    _, end = whole_pod(where, root, profile(), io)
    print(f"        io={io}; {end['searches']} searches through three restarts, the slowest {end['slowest_us']} us")


def with_io_uring_forbidden(where, root):
    _, end = whole_pod(where, root, [name for name in profile() if name not in IO_URING], "threads")
    print(f"        io=threads; {end['searches']} searches through three restarts, the slowest {end['slowest_us']} us")


def forbidden_io_uring_is_told_with_the_line_that_permits_it(where, root):
    pod = Pod(where, root)
    forbidden = [name for name in profile() if name not in IO_URING]
    try:
        pod.start_kithd(permitted=forbidden)
        pod.kithd.logged(r"event=start .*io=threads why=\"?io_uring cannot be used: .*Operation not permitted")
        status, out, _ = pod.kith("--json", "doctor", uid=KITHD_UID, gid=KITHD_UID, permitted=forbidden)
        found = {f["check"]: f for f in map(json.loads, out.splitlines())}
        assert status == 0, out  # a health command does not fail for what only costs time
        assert found["io-uring"]["state"] == "warn" and "forbidden" in found["io-uring"]["text"], found["io-uring"]
        assert found["io-uring"]["fix"], found["io-uring"]
        assert found["run-dir"]["state"] == "ok" and found["daemon"]["state"] == "ok", out
    finally:
        pod.end()


def payload_file(pod, rows, size):
    """Rows that are mostly payload: they fill memory without taking time to insert."""
    path = os.path.join(pod.base, "load")
    os.mkdir(path)
    os.chmod(path, 0o755)
    with open(os.path.join(path, "rows.jsonl"), "w", encoding="ascii") as out:
        vector = ",".join(["0.25"] * 64)
        text = "x" * size
        for i in range(rows):
            out.write(f'{{"id":"p{i}","vector":[{vector}],"payload":{{"n":{i},"text":"{text}"}}}}\n')
    return [path, "/var/lib/kith", True]


def fill_up(pod, rows, size=50000):
    """Load until kithd refuses; what it says."""
    volume = payload_file(pod, rows, size)
    status, out, err = pod.kith("load", "demo", "/var/lib/kith/rows.jsonl", binds=[volume])
    assert status == 1, f"{rows} rows of {size} bytes were all taken: {out}"
    return err


def a_full_tmpfs_refuses_writes_and_searches_go_on(where, root):
    pod = Pod(where, root, run_bytes="64m")
    try:
        pod.start_kithd()
        pod.fill()
        app = pod.start_app()
        searched_on(app)
        err = fill_up(pod, 1200)
        assert re.search(r"no room|run directory", err), err
        print("        kith says: " + err.strip().splitlines()[0][:300])
        searched_on(app)
        status, out = pod.probe("doctor", "--quiet")
        assert "run-dir-space" in out, out
        assert pod.probe("stats", "--alive")[0] == 0  # nothing that restarts it would help
        # Killed when there is no room, it comes back, and readers do not notice.
        pod.kithd.kill()
        searched_on(app)
        pod.start_kithd()
        searched_on(app)
        assert pod.kith("delete", "demo", "p0")[0] == 0  # what gives room is taken
        app.stop()
        assert last(app)["failed"] == 0 and last(app)["odd"] == 0, last(app)
    except BaseException:
        pod.show()
        raise
    finally:
        pod.end()


class MemoryGroup:
    """A cgroup with a limit, of either version; None where none can be made."""

    @staticmethod
    def make(limit):
        own = {line.split(":", 2)[1]: line.strip().split(":", 2)[2] for line in read("/proc/self/cgroup").splitlines()}
        places = []
        if "memory" in own:
            places = [("/sys/fs/cgroup/memory" + own["memory"], "memory.limit_in_bytes"),
                      ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
        elif "" in own:
            places = [("/sys/fs/cgroup" + own[""], "memory.max"), ("/sys/fs/cgroup", "memory.max")]
        for place, limit_file in places:
            path = os.path.join(place, f"kith-test-{os.getpid()}")
            try:
                os.mkdir(path)
            except OSError:
                continue
            try:
                with open(os.path.join(path, limit_file), "w", encoding="ascii") as out:
                    out.write(str(limit))
                return MemoryGroup(path)
            except OSError:
                os.rmdir(path)
        return None

    def __init__(self, path):
        self.path = path

    def oom_kills(self):
        text = read(os.path.join(self.path, "memory.events")) or read(os.path.join(self.path, "memory.oom_control"))
        return int((re.search(r"oom_kill (\d+)", text) or ["", "0"])[1])

    def remove(self):
        def gone():
            try:
                os.rmdir(self.path)
                return True
            except OSError:
                return False
        wait_until("the cgroup can be removed", gone)


def a_memory_limit_refuses_writes_and_searches_go_on(where, root):
    group = MemoryGroup.make(96 << 20)
    if group is None:
        print("        skipped: no cgroup with a memory limit can be made here")
        return
    pod = Pod(where, root, run_bytes="1g")
    try:
        pod.start_kithd(cgroup=group.path)
        pod.fill()
        app = pod.start_app()
        searched_on(app)
        err = fill_up(pod, 1900)
        print("        kith says: " + err.strip().splitlines()[0][:300])
        assert re.search(r"memory|room", err), err
        assert pod.kithd.running() and group.oom_kills() == 0, "the OOM killer was there"
        searched_on(app)
        assert pod.probe("stats", "--alive")[0] == 0
        app.stop()
        assert last(app)["failed"] == 0 and last(app)["odd"] == 0, last(app)
        # Not stopped: what a last checkpoint takes counts against the same limit, and may have the OOM killer end kithd. Killed it loses as little.
        pod.kithd.kill()
    except BaseException:
        pod.show()
        raise
    finally:
        pod.end()
        group.remove()


def another_uid_runs_the_image_and_not_the_data_of_others(where, root):
    pod = Pod(where, root)
    try:
        # OpenShift gives a namespace numbers of its own; nothing knows a name for this one.
        pod.start_kithd(uid=1234567)
        pod.fill(300)
        pod.kithd.stop()
        other = pod.start_kithd(uid=KITHD_UID, ready=False)
        assert other.wait() == 1
        words = r"data directory /var/lib/kith/data belongs to user 1234567, kithd runs as user 10001; change its owner"
        assert re.search(words, other.err()), other.err()
        pod.start_kithd(uid=1234567)
        assert pod.kith("count", "demo")[1].strip() == "300"
    finally:
        pod.end()


def a_volume_that_all_may_write_is_refused_with_the_way_out(where, root):
    """The mistake of the run directory being the volume itself."""
    pod = Pod(where, root)
    try:
        os.chown(pod.run, KITHD_UID, READ_GROUP)
        kithd = pod.start("kithd", ["/usr/bin/kithd", "--data", DATA, "--run", "/run/kith"], KITHD_UID, KITHD_UID,
                          [READ_GROUP], [[pod.run, "/run/kith", False], [pod.data, "/var/lib/kith", False]])
        assert kithd.wait() == 1
        assert "can be written by others; take that away with chmod go-w" in kithd.err(), kithd.err()
    finally:
        pod.end()


def a_run_directory_on_a_disk_works_and_says_what_it_costs(where, root):
    pod = Pod(where, root, on_disk=True)
    try:
        pod.start_kithd()
        pod.kithd.logged(r"level=warn event=run-not-tmpfs .*wears it out and makes writes wait; mount a tmpfs there")
        pod.fill(500)
        app = pod.start_app()
        searched_on(app)
        status, out = pod.probe("doctor", "--quiet")
        assert re.search(r"warn +run-dir-space +the run directory is not on a tmpfs: .*wears it out", out), out
        assert "fix: mount -t tmpfs" in out and status == 0, out
        pod.kithd.kill()
        searched_on(app)
        pod.start_kithd()
        searched_on(app)
        app.stop()
        assert last(app)["failed"] == 0 and last(app)["odd"] == 0, last(app)
    finally:
        pod.end()


def frame(kind, tag, body):
    return struct.pack("<IIHHIQ", 0x3148544B, len(body), kind, 0, 0, tag) + body


def take(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        assert piece, "the connection was closed"
        data += piece
    return data


def mixed_versions_are_refused_with_what_to_do(where, root):
    pod = Pod(where, root)
    try:
        pod.start_kithd()
        pod.fill(300)
        path = os.path.join(pod.run, "index", "kithd.sock")

        # Libraries from before and after this kithd: as it greets them.
        refusals = []
        for version in (1, 3):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(path)
                client.sendall(frame(1, 7, struct.pack("<II", version, 0)))
                head = take(client, 24)
                answer = take(client, struct.unpack_from("<I", head, 4)[0])
                status, _, _, _, length = struct.unpack_from("<iIQII", answer)
                text = answer[24:24 + length].decode()
                assert status < -10000 and f"the client speaks version {version}" in text, text
                assert "use the library that belongs to it" in text, text
                refusals.append(answer)
                assert client.recv(1) == b"", "it goes on talking"

        # A segment of another version, as a library of this one finds it: the field behind the magic.
        segment = os.path.join(pod.run, "index", "demo", "segment")
        for step in (-1, 1):
            other = os.path.join(pod.base, "other")
            subprocess.run(["cp", "--sparse=auto", segment, other], check=True, timeout=PATIENCE)  # most of it are holes
            with open(other, "r+b") as file:
                file.seek(8)
                version = struct.unpack("<I", file.read(4))[0]
                file.seek(8)
                file.write(struct.pack("<I", version + step))
            os.chmod(other, 0o644)
            os.makedirs(pod.base + "/v", exist_ok=True)
            os.replace(other, pod.base + "/v/segment")
            status, _, err = pod.kith("count", "/var/lib/kith/segment", binds=[[pod.base + "/v", "/var/lib/kith", True]])
            assert status == 1 and f"format version {version + step}, this program reads version {version}" in err, err
            assert "use the kith that belongs to the daemon" in err, err

        # A kithd of another version, as a library of this one meets it: it says what the real one would.
        pod.kithd.stop()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            os.chmod(path, 0o666)
            server.listen(4)
            server.settimeout(PATIENCE)
            tool = Container(pod, "kith", ["/usr/bin/kith", "--run", RUN, "delete", "demo", "1"], APP_UID, WRITE_GROUP,
                             [READ_GROUP], [[pod.run, "/run/kith", True]])
            with server.accept()[0] as connection:
                connection.settimeout(PATIENCE)
                hello = take(connection, 32)
                tag = struct.unpack_from("<Q", hello, 16)[0]
                connection.sendall(struct.pack("<IIHHIQ", 0x3148544B, len(refusals[1]), 128, 0, 0, tag) + refusals[1])
                assert tool.wait() == 1
            assert re.search(r"another format version; use the kith that belongs to this daemon|use the library that belongs to it",
                             tool.err()), tool.err()
    finally:
        pod.end()


TESTS = (with_io_uring_permitted, with_io_uring_forbidden, forbidden_io_uring_is_told_with_the_line_that_permits_it,
         a_full_tmpfs_refuses_writes_and_searches_go_on, a_memory_limit_refuses_writes_and_searches_go_on,
         another_uid_runs_the_image_and_not_the_data_of_others, a_volume_that_all_may_write_is_refused_with_the_way_out,
         a_run_directory_on_a_disk_works_and_says_what_it_costs, mixed_versions_are_refused_with_what_to_do)


def main():
    if os.geteuid() != 0:
        print("skipped: making namespaces takes root")
        sys.exit(SKIP)
    if not sandbox.syscall_numbers():
        print("skipped: no header of this machine's system calls (linux-libc-dev), or not x86-64")
        sys.exit(SKIP)
    try:
        sandbox.private_mounts()
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            raise
        print(f"skipped: {error}")
        sys.exit(SKIP)
    only, failed = os.environ.get("KITH_TEST_ONLY"), 0
    # Beside the programs, which is a disk more often than /tmp is.
    where = tempfile.mkdtemp(prefix="kith-pod-test-", dir=os.path.dirname(PROGRAMS))
    os.chmod(where, 0o755)
    try:
        subprocess.run([os.path.join(SOURCE, "tools/deploy/image/rootfs.sh"), where,
                        *(os.path.join(PROGRAMS, name) for name in ("kithd", "kith-gateway", "kith", "kith-example-app"))],
                       check=True)
        root = os.path.join(where, "rootfs")
        for test in TESTS:
            if only and test.__name__ != only:
                continue
            began = time.monotonic()
            try:
                test(where, root)
                print(f"ok      {test.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
            except Exception:  # whatever it is, the next test may tell more
                failed += 1
                print(f"FAILED  {test.__name__}", flush=True)
                traceback.print_exc()
    finally:
        shutil.rmtree(where, ignore_errors=True)
    print(f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
