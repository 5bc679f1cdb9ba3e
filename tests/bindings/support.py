"""A kithd for tests of bindings, in directories of its own, ended with the tests; its log is shown when one fails.

KITH_TEST_KITHD and KITH_TEST_KITH name the programs, KITH_LIBRARY the library (CMake sets them).
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SLOWNESS = float(os.environ.get("KITH_TEST_SLOWNESS", "1"))
PATIENCE = 60 * SLOWNESS


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


class Daemon:
    def __init__(self):
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.top = tempfile.mkdtemp(prefix="kith-bindings-")
        self.data = os.path.join(self.top, "data")
        self.log = os.path.join(self.top, "kithd.log")
        self.run = tempfile.mkdtemp(prefix="kith-bindings-", dir=shm)
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([os.environ["KITH_TEST_KITHD"], "--data", self.data, "--run", self.run], stderr=log,
                                            stdin=subprocess.DEVNULL)
        wait_until("kithd serves", self._serves)

    def _serves(self):
        assert self.process.poll() is None, "kithd has ended"
        return subprocess.run([os.environ["KITH_TEST_KITH"], "--run", self.run, "stats", "--ready"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False).returncode == 0

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def end(self):
        if self.process:
            self.process.terminate()
            self.process.wait(PATIENCE)
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.top, ignore_errors=True)

    def show(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            sys.stderr.write("---- kithd's log\n" + log.read()[-6000:])


class WithDaemon(unittest.TestCase):
    """Tests that share one kithd."""

    daemon = None

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.addClassCleanup(cls.daemon.end)
        try:
            cls.daemon.start()
        except BaseException:
            cls.daemon.show()
            raise


def main():
    program = unittest.main(exit=False, verbosity=2)
    sys.exit(not program.result.wasSuccessful())
