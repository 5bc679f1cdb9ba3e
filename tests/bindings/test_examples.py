"""The programs of client/examples, run as somebody would who tries them, against a live kithd."""
import os
import subprocess
import unittest

import support

EXAMPLES = os.environ["KITH_TEST_EXAMPLES"]


class Examples(support.WithDaemon):
    def run_example(self, name, *args, status=0):
        done = subprocess.run([os.path.join(EXAMPLES, "kith_example_" + name), *args], capture_output=True, text=True, check=False,
                              env={**os.environ, "KITH_RUN": self.daemon.run}, timeout=support.PATIENCE)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def kith(self, *args):
        subprocess.run([os.environ["KITH_TEST_KITH"], "--run", self.daemon.run, *args], check=True, stdout=subprocess.DEVNULL)

    def test_write_then_search_from_c_and_cpp_and_threads(self):
        self.assertRegex(self.run_example("write", "circle", "1000"), r"^'circle' is at epoch \d+\n$")
        self.assertIn("exists", self.run_example("write", "circle", "1000", status=1))
        lines = [line.split() for line in self.run_example("search", "circle", "10", "2").splitlines()]
        self.assertEqual(sorted(line[0] for line in lines), ["11", "9"])
        self.assertAlmostEqual(float(lines[0][1]), (6.28318530718 / 1000) ** 2, places=7)
        self.run_example("write", "small", "100") # as many as a search looks at by default: each finds itself
        self.assertEqual(self.run_example("threads", "small", "4", "500"), "4 threads found 2000 vectors of 2000\n")
        self.assertIn("1 to 64 threads", self.run_example("threads", "circle", "65", "1", status=2))
        self.assertIn("no collection", self.run_example("threads", "nobody", "1", "1", status=1))

    @unittest.skipUnless(os.path.exists(os.path.join(EXAMPLES, "kith_example_search_cpp")), "no C++ compiler")
    def test_cpp_with_a_filter(self):
        self.kith("create", "docs", "--dim", "2", "--metric", "l2")
        for id, x, lang in (("a", 0, "en"), ("b", 1, "fr"), ("c", 2, "en")):
            self.kith("put", "docs", id, "--vector", f"[{x}, 0]", "--payload", f'{{"lang": "{lang}"}}')
        self.assertEqual(self.run_example("search_cpp", "docs", "a"), "a 0\nb 1\nc 4\n")
        self.assertEqual(self.run_example("search_cpp", "docs", "a", 'lang = "en"'), "a 0\nc 4\n")
        self.assertIn("expected a value", self.run_example("search_cpp", "docs", "a", "lang =", status=1))
        self.assertEqual(self.run_example("search_cpp", "docs", "nobody", status=1), "no such id\n")
        self.assertIn("'nobody'", self.run_example("search_cpp", "nobody", "a", status=1))

    def test_watch_reacts_to_what_is_written(self):
        self.kith("create", "live", "--dim", "2", "--metric", "l2")
        self.kith("put", "live", "me", "--vector", "[0, 0]")
        with subprocess.Popen([os.path.join(EXAMPLES, "kith_example_watch"), "live", "me", "3"], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "KITH_RUN": self.daemon.run}) as watch:
            for id, x in (("far", 9), ("nearer", 5), ("near", 1)):
                self.kith("put", "live", id, "--vector", f"[{x}, 0]")
                self.assertEqual(watch.stdout.readline(), id + "\n")
            self.assertEqual(watch.wait(support.PATIENCE), 0)
        self.assertIn("has passed", self.run_example("watch", "live", "me", "2", "0", status=1))


if __name__ == "__main__":
    support.main()
