"""The Python package as a package: a wheel that is built without a network, what a wrong library is told, types."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

SOURCES = os.environ["KITH_TEST_PYTHON_SOURCES"]
CLIENT = os.path.dirname(os.path.dirname(SOURCES))


def run(*args, **environment):
    return subprocess.run(args, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment})


class Package(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="kith-wheel-")
        self.addCleanup(shutil.rmtree, self.top)

    def load(self, **environment):
        return run(sys.executable, "-B", "-c", "import kith; print(kith.version())", **environment)

    def test_a_wheel_is_built_offline_and_used(self):
        try:
            import setuptools, wheel # noqa: E401,F401
        except ImportError as e:
            self.skipTest(f"{e} (tools/dev/setup.sh --tests)")
        # In a copy, as it builds beside its sources; the header stays where it is, three folders up.
        tree = os.path.join(self.top, "client", "bindings", "python")
        shutil.copytree(SOURCES, tree, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
        shutil.copytree(os.path.join(CLIENT, "include"), os.path.join(self.top, "client", "include"))
        out = os.path.join(self.top, "dist")
        os.mkdir(out)
        done = subprocess.run([sys.executable, "-B", "-c", "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])", out],
                              cwd=tree, capture_output=True, text=True, check=False, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        wheels = glob.glob(os.path.join(out, "*.whl"))
        self.assertEqual([os.path.basename(w) for w in wheels], ["kith-0.1.0-py3-none-any.whl"])
        installed = os.path.join(self.top, "installed")
        with zipfile.ZipFile(wheels[0]) as wheel:
            self.assertIn("kith/py.typed", wheel.namelist())
            self.assertIn("kith/_abi.py", wheel.namelist())
            wheel.extractall(installed)
        done = self.load(PYTHONPATH=installed)
        self.assertEqual((done.stdout, done.stderr), ("0.1.0\n", ""))

    def test_a_library_that_does_not_go_with_it_is_refused_with_the_reason(self):
        done = self.load(KITH_LIBRARY=os.path.join(self.top, "libkith.so.0"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "ImportError: kith: cannot load .*libkith.so.0.*let KITH_LIBRARY name")
        done = self.load(KITH_LIBRARY="libm.so.6")
        self.assertRegex(done.stderr, "ImportError: kith: libm.so.6 is older than this package, or no libkith")
        cc = shutil.which("cc")
        if cc:
            other = os.path.join(self.top, "other.so")
            symbols = subprocess.run([sys.executable, "-B", "-c", "from kith._library import lib; print(*[s for s in dir(lib) if s.startswith('kith_')])"],
                                     capture_output=True, text=True, check=True).stdout.split()
            with open(other + ".c", "w", encoding="ascii") as c:
                c.write('const char *kith_version(void) { return "7.1.0"; }\n')
                c.writelines(f"int {s}(void) {{ return 0; }}\n" for s in symbols if s != "kith_version")
            subprocess.run([cc, "-shared", "-fPIC", "-o", other, other + ".c"], check=True)
            self.assertRegex(self.load(KITH_LIBRARY=other).stderr, r"ImportError: kith: .*other.so is version 7.1.0, and this package is for 0.1; install both")

    @unittest.skipUnless(shutil.which("mypy"), "mypy is not installed (tools/dev/setup.sh --tests)")
    def test_types_hold(self):
        tree = os.path.join(self.top, "types")
        shutil.copytree(SOURCES, tree, ignore=shutil.ignore_patterns("__pycache__", "build"))
        done = subprocess.run(["mypy", "--cache-dir", os.path.join(self.top, "cache")], cwd=tree, capture_output=True, text=True, check=False,
                              timeout=300, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
