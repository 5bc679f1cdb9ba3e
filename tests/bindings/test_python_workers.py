"""The pre-fork service of client/bindings/python/examples: eight workers share one copy of the index, see what is written, and outlive kithd."""
import json
import os
import re
import signal
import subprocess
import sys
import unittest
import urllib.error
import urllib.request

import numpy as np

import kith
import support

WORKERS = 8


class Workers(support.WithDaemon):
    def test_eight_workers_share_one_copy(self):
        run_dir = self.daemon.run
        kith.create("shared", 64, "l2", run_dir=run_dir)
        index = kith.open("shared", run_dir=run_dir)
        index.load(np.random.default_rng(3).random((4000, 64), dtype=np.float32), durability="none")
        program = os.path.join(os.environ["KITH_TEST_PYTHON_SOURCES"], "examples", "workers.py")
        with subprocess.Popen([sys.executable, "-B", program, "shared", "--workers", str(WORKERS), "--port", "0", "--run", run_dir],
                              stdout=subprocess.PIPE, text=True) as service:
            try:
                port = int(re.search(r"port (\d+)", service.stdout.readline())[1])

                def ask(path):
                    try:
                        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=support.PATIENCE) as answer:
                            return answer.status, json.load(answer)
                    except urllib.error.HTTPError as e:
                        return e.code, json.load(e)
                status, body = ask("/like?id=5&k=3")
                self.assertEqual((status, [h["id"] for h in body["hits"]]), (200, index.search_id("5", 3).ids))
                self.assertEqual(ask("/like?id=nobody"), (404, {"error": "'nobody': no such id"}))
                self.assertEqual(ask("/like?id=5&k=0")[0], 400)
                self.assertEqual(ask("/else")[0], 404)

                memory = support.wait_until("all workers are there", lambda: (m := ask("/memory")[1]) and len(m["processes"]) == WORKERS
                                            and all(p["rss"] for p in m["processes"].values()) and m)
                each = memory["processes"].values()
                segment = memory["segment_kib"]
                for m in each: # each maps all of it, and has none of it for itself
                    self.assertGreater(m["rss"], segment * 0.5)
                    self.assertEqual(m["private"], 0)
                self.assertLessEqual(memory["pss_kib"], segment * 1.01 + 8 * len(each), "together they take one copy at most")
                self.assertGreater(sum(m["rss"] for m in each), 4 * segment, "while each sees all of it")
                print(f"segment {segment} KiB; {WORKERS} workers: rss {sum(m['rss'] for m in each)} KiB, pss {memory['pss_kib']} KiB")

                index.upsert("new", index.get("5"))
                self.assertEqual(ask("/like?id=5&k=1")[1]["hits"][0]["id"], "new")
                self.daemon.kill()
                self.assertEqual(ask("/like?id=5&k=1")[1]["hits"][0]["id"], "new")

                victim = ask("/like?id=5&k=1")[1]["worker"]
                os.kill(victim, signal.SIGKILL)
                support.wait_until("the parent has made another worker", lambda: len(ask("/memory")[1]["processes"]) == WORKERS
                                   and str(victim) not in ask("/memory")[1]["processes"])
            finally:
                service.terminate()
            self.assertEqual(service.wait(support.PATIENCE), 0)


if __name__ == "__main__":
    support.main()
