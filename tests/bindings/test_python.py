"""The Python package against a live kithd: every call, what it refuses, copies that are not made, forks, threads, and a kithd that dies."""
import gc
import multiprocessing
import os
import pickle
import threading
import time
import tracemalloc
import unittest

import numpy as np

import kith
from kith._hits import FLOATS
from kith._library import ffi, lib

import support

DIM = 16
RNG = np.random.default_rng(20261130)
VECTORS = RNG.random((2000, DIM), dtype=np.float32)


def nearest(query, rows, k):
    distances = ((rows - query) ** 2).sum(axis=1)
    order = np.argsort(distances, kind="stable")[:k]
    return [str(i) for i in order], distances[order]


class Filled(support.WithDaemon):
    """A collection "points" of VECTORS, made anew for each test that writes to it by another name."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.run_dir = cls.daemon.run
        kith.create("points", DIM, "l2", run_dir=cls.run_dir)
        cls.index = kith.open("points", run_dir=cls.run_dir)
        cls.addClassCleanup(cls.index.close)
        loaded = cls.index.load(VECTORS)
        assert loaded.count == len(VECTORS) and loaded.epoch == cls.index.epoch

    def make(self, name, dim=DIM, metric="l2", **more):
        kith.create(name, dim, metric, run_dir=self.run_dir, **more)
        index = kith.open(name, run_dir=self.run_dir)
        self.addCleanup(kith.drop, name, run_dir=self.run_dir)
        self.addCleanup(index.close)
        return index


class Searching(Filled):
    def test_hits_are_the_exact_neighbours(self):
        for query in RNG.random((20, DIM), dtype=np.float32):
            ids, distances = nearest(query, VECTORS, 7)
            hits = self.index.search(query, 7, exact=True)
            self.assertEqual(hits.ids, ids)
            np.testing.assert_allclose(hits.distances, distances, rtol=1e-5)
            self.assertEqual(hits.distances.dtype, np.float32)
            self.assertEqual(len(hits), 7)
            self.assertEqual([h.id for h in hits], ids)
            self.assertEqual(hits[0].id, ids[0])
            self.assertEqual(hits[-1], list(hits)[-1])
            self.assertEqual([h.id for h in hits[2:4]], ids[2:4])

    def test_hits_stay_when_others_are_asked_for(self):
        first = self.index.search(VECTORS[1], 3)
        others = [self.index.search(v, 3) for v in VECTORS[2:50]]
        self.assertEqual(first.ids[0], "1")
        self.assertEqual([o.ids[0] for o in others], [str(i) for i in range(2, 50)])

    def test_info_says_what_a_search_did(self):
        info = self.index.search(VECTORS[0], 3, ef=64).info
        self.assertEqual((info.ef, info.ef_basis, info.epoch), (64, "given", self.index.epoch))
        self.assertGreater(info.distance_count, 64)
        self.assertIn(self.index.search(VECTORS[0], 3, recall=0.9).info.ef_basis, ("curve", "beyond", "blind"))

    def test_options_made_once_serve_many_searches(self):
        options = kith.SearchOptions(ef=50, exact=False)
        self.assertEqual(self.index.search(VECTORS[9], 3, options=options).info.ef, 50)
        self.assertEqual(self.index.search_id("9", 3, options=options).info.ef, 50)
        with self.assertRaises(TypeError):
            self.index.search(VECTORS[9], 3, ef=3, options=options)
        timed = self.index.search(VECTORS[9], 3, timeout=0.0)
        self.assertTrue(timed.info.deadline_hit)
        self.assertEqual(self.index.search(VECTORS[9], 3, timeout=60.0)[0].id, "9")

    def test_search_by_id_leaves_the_id_out(self):
        hits = self.index.search_id("5", 4, exact=True)
        self.assertEqual(hits.ids, nearest(VECTORS[5], VECTORS, 5)[0][1:])
        self.assertEqual(self.index.search_id(5, 4, exact=True).ids, hits.ids)
        with self.assertRaises(KeyError) as caught:
            self.index.search_id("nobody", 4)
        self.assertEqual(caught.exception.name, "KITH_E_NOT_FOUND")
        self.assertEqual(str(caught.exception), "'nobody': no such id")

    def test_a_batch_is_its_searches(self):
        queries = RNG.random((300, DIM), dtype=np.float32)
        found = self.index.search_batch(queries, 5, exact=True, info=True)
        self.assertEqual(found.distances.shape, (300, 5))
        for i in (0, 255, 256, 299):
            self.assertEqual(found.ids[i], nearest(queries[i], VECTORS, 5)[0])
            np.testing.assert_array_equal(found.distances[i], self.index.search(queries[i], 5, exact=True).distances)
        self.assertEqual(len(found.infos), 300)
        self.assertEqual(len(self.index.search_batch(queries[:0], 5)), 0)
        queries[270, 0] = np.nan
        with self.assertRaises(kith.NotFiniteError) as caught:
            self.index.search_batch(queries, 5)
        self.assertIn("query 270", str(caught.exception))

    def test_fewer_vectors_than_k_leave_nan_behind(self):
        index = self.make("few")
        index.load(VECTORS[:3])
        found = index.search_batch(VECTORS[:2], 5)
        self.assertEqual([len(ids) for ids in found.ids], [3, 3])
        self.assertTrue(np.isnan(found.distances[:, 3:]).all())
        self.assertFalse(np.isnan(found.distances[:, :3]).any())

    def test_what_numpy_has_is_taken(self):
        want = self.index.search(VECTORS[4], 3).ids
        wide = np.zeros((DIM, 2), np.float32)
        wide[:, 0] = VECTORS[4]
        raw = np.zeros(4 * DIM + 1, np.uint8)
        raw[1:] = VECTORS[4].view(np.uint8)
        read_only = VECTORS[4].copy()
        read_only.flags.writeable = False
        for query in (VECTORS[4].astype(np.float64), VECTORS[4].tolist(), wide[:, 0], raw[1:].view(np.float32), read_only,
                      VECTORS[4].astype(">f4"), tuple(VECTORS[4].tolist())):
            self.assertEqual(self.index.search(query, 3).ids, want)

    def test_bad_queries_say_what_is_wrong(self):
        for query, error, words in (
                (VECTORS[0][:5], kith.DimensionError, "a collection of 16 dimensions"),
                (VECTORS[:2], kith.DimensionError, "shape (2, 16)"),
                (np.float32(1), kith.DimensionError, "shape ()"),
                (np.full(DIM, np.inf, np.float32), kith.NotFiniteError, "NaN or infinity")):
            with self.assertRaisesRegex(error, words.replace("(", r"\(").replace(")", r"\)")):
                self.index.search(query)
            self.assertTrue(issubclass(error, ValueError))
        with self.assertRaises(kith.KError):
            self.index.search(VECTORS[0], 0)
        with self.assertRaises(kith.EfError):
            self.index.search(VECTORS[0], 10, ef=5)
        with self.assertRaises(kith.RecallError):
            self.index.search(VECTORS[0], 10, recall=1.5)
        with self.assertRaises((TypeError, ValueError)):
            self.index.search(["a"] * DIM)


class Copies(Filled):
    def test_a_query_is_read_where_it_lies(self):
        query = VECTORS[3]
        self.assertEqual(int(ffi.cast("uintptr_t", ffi.from_buffer(FLOATS, query))), query.ctypes.data)
        from kith._args import floats_of, rows_of
        self.assertEqual(int(ffi.cast("uintptr_t", floats_of(query)[0])), query.ctypes.data)
        self.assertIs(rows_of(VECTORS, DIM), VECTORS)

    def test_large_arrays_go_in_without_a_copy(self):
        index = self.make("wide", 256)
        rows = RNG.random((4000, 256), dtype=np.float32) # 4 MB
        index.search_batch(rows[:1], 1)
        gc.collect()
        tracemalloc.start()
        try:
            index.load(rows, durability="none")
            index.search_batch(rows[:512], 1, ef=1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, rows.nbytes / 8, "numpy tells tracemalloc of its arrays: a copy would show")

    def test_vectors_come_out_into_the_callers_array(self):
        out = np.empty((3, DIM), np.float32)
        got = self.index.get("7", out=out[1])
        self.assertEqual(got.ctypes.data, out[1].ctypes.data)
        np.testing.assert_array_equal(out[1], VECTORS[7])
        with self.assertRaisesRegex(ValueError, "16 elements"):
            self.index.get("7", out=np.empty(3, np.float32))
        with self.assertRaises(ValueError):
            self.index.get("7", out=np.empty(DIM, np.float64))

    def test_a_page_is_a_view_that_outlives_it(self):
        page = next(self.index.pages(limit=500, vectors=True))
        vectors, ids = page.vectors, page.ids
        self.assertEqual(int(ffi.cast("uintptr_t", lib.kith_results_vector(page._r, 0))), vectors.ctypes.data)
        self.assertFalse(vectors.flags.writeable)
        del page
        gc.collect()
        for _ in range(100): # others would take the place of what was given back too early
            next(self.index.pages(limit=500, vectors=True))
        for row, id in zip(vectors, ids):
            np.testing.assert_array_equal(row, VECTORS[int(id)])

    def test_distances_are_written_into_the_array(self):
        found = self.index.search_batch(VECTORS[:64], 3)
        self.assertIsNone(found.distances.base)
        self.assertTrue(found.distances.flags.owndata)


class Reading(Filled):
    def test_get_fetch_exists_count(self):
        np.testing.assert_array_equal(self.index.get("11"), VECTORS[11])
        record = self.index.fetch("11")
        self.assertEqual((record.id, record.payload, record.epoch), ("11", None, self.index.epoch))
        np.testing.assert_array_equal(record.vector, VECTORS[11])
        self.assertIsNone(self.index.fetch("11", vector=False).vector)
        self.assertIn("11", self.index)
        self.assertNotIn("nobody", self.index)
        self.assertEqual(len(self.index), len(VECTORS))
        self.assertTrue(self.index)
        with self.assertRaises(kith.NotFoundError):
            self.index.get("nobody")

    def test_ids_that_are_none(self):
        for bad in ("", "a\0b", "x" * 512, "\ud800"):
            with self.assertRaises(kith.IdError):
                self.index.get(bad)
        with self.assertRaises(TypeError):
            self.index.get(1.5)

    def test_pages_have_every_id_once(self):
        pages = list(self.index.pages(limit=300))
        ids = [i for page in pages for i in page.ids]
        self.assertEqual(sorted(ids, key=int), [str(i) for i in range(len(VECTORS))])
        self.assertEqual(ids, list(self.index))
        again = next(self.index.pages(limit=300, cursor=pages[0].cursor))
        self.assertEqual(again.ids, pages[1].ids)
        with self.assertRaises(kith.CursorError):
            next(self.index.pages(cursor="nonsense"))

    def test_figures(self):
        stats = self.index.stats()
        self.assertEqual((stats.live_count, stats.dim, stats.metric, stats.daemon_alive), (len(VECTORS), DIM, "l2", True))
        self.assertEqual((self.index.dim, self.index.metric, self.index.name), (DIM, "l2", "points"))
        self.assertEqual(self.index.memory()["regions"]["all"]["taken"], stats.bytes_taken)
        self.assertIsInstance(self.index.daemon_stats(), dict)
        self.assertIsInstance(self.index.recall_curve(10), list)
        self.assertEqual(kith.readiness(run_dir=self.run_dir)["waiting"], 0)
        self.assertIn("points", kith.collections(run_dir=self.run_dir))

    def test_a_snapshot_is_read_again_or_stale(self):
        index = self.make("moments")
        index.load(VECTORS[:100])
        then = index.snapshot()
        index.upsert("new", VECTORS[0])
        self.assertEqual((index.count(), index.count(at=then)), (101, 100))
        self.assertFalse(index.exists("new", at=then))
        self.assertEqual(index.search(VECTORS[0], 1, at=then).ids, ["0"])
        np.testing.assert_array_equal(index.get("0", at=pickle.loads(pickle.dumps(then))), VECTORS[0])
        with self.assertRaises(kith.EpochError):
            index.count(at=kith.Snapshot(then.epoch + 1000, then.timeline))

        def stale():
            index.upsert("0", VECTORS[5])
            try:
                index.search(VECTORS[0], 1, at=then)
            except kith.StaleError:
                return True
            return False
        support.wait_until("a snapshot whose vectors were replaced is stale", stale)


class Writing(Filled):
    def test_upsert_get_delete(self):
        index = self.make("writes")
        epoch = index.upsert("a", VECTORS[0])
        self.assertGreaterEqual(index.epoch, epoch)
        np.testing.assert_array_equal(index.get("a"), VECTORS[0])
        index.upsert("a", VECTORS[1].tolist())
        np.testing.assert_array_equal(index.get("a"), VECTORS[1])
        index.upsert(7, VECTORS[2])
        self.assertIn("7", index)
        index.delete("a")
        self.assertNotIn("a", index)
        with self.assertRaises(kith.NotFoundError):
            index.delete("a")
        with self.assertRaises(kith.DimensionError):
            index.upsert("a", VECTORS[0][:3])
        self.assertGreater(index.flush(), 0)
        for durability in ("applied", "none", "durable"):
            index.set_durability(durability)
            index.wait_durable(index.upsert("b", VECTORS[3]), 60)
        with self.assertRaisesRegex(ValueError, "durable, applied, none"):
            index.set_durability("maybe")

    def test_payloads_and_filters(self):
        index = self.make("docs")
        index.upsert("a", VECTORS[0], {"lang": "en", "n": 1, "author": {"name": "A"}, "tags": ["x", "y"]})
        index.upsert("b", VECTORS[1], '{"lang":"fr","n":2}')
        index.upsert("c", VECTORS[2])
        self.assertEqual(index.fetch("a").payload, {"lang": "en", "n": 1, "author": {"name": "A"}, "tags": ["x", "y"]})
        index.upsert("a", VECTORS[3])
        self.assertEqual(index.fetch("a").payload["lang"], "en", "a payload stays where none is given")
        self.assertEqual(index.search(VECTORS[0], 3, filter='lang = "fr"', payloads=True).payloads, [{"lang": "fr", "n": 2}])
        self.assertEqual(index.search(VECTORS[3], 1, fields=["author.name"]).payloads, [{"author": {"name": "A"}}])
        self.assertEqual(index.search(VECTORS[3], 1, payloads=True).payload_json(0), '{"author":{"name":"A"},"lang":"en","n":1,"tags":["x","y"]}')
        self.assertEqual(index.fetch("a", vector=False, fields=["n"]).payload, {"n": 1})
        self.assertEqual(index.count('n >= 1'), 2)
        self.assertEqual(index.search_batch(VECTORS[:2], 1, payloads=True, filter="n = 1").payloads[1][0]["lang"], "en")
        self.assertEqual(sorted(i for page in index.pages(filter="exists(n)", payloads=True) for i in page.ids), ["a", "b"])
        index.merge_payload("a", {"n": None, "read": True})
        index.remove_fields("a", ["author.name", "tags"])
        self.assertEqual(index.fetch("a").payload, {"lang": "en", "read": True, "author": {}})
        index.set_payload("b", {"lang": "en"})
        facet = index.facet("lang")
        self.assertEqual((facet.vectors, facet.having, facet.values), (3, 2, (("en", 2),)))
        self.assertEqual(index.explain('lang = "en"').vectors, 3)
        self.assertIn("nope", index.search(VECTORS[0], 3, filter="nope = 1").notice)
        self.assertEqual(index.delete_where('lang = "en"'), 2)
        self.assertEqual(list(index), ["c"])

    def test_bad_filters_and_payloads_show_the_place(self):
        index = self.make("bad")
        index.upsert("a", VECTORS[0], {"n": 1})
        with self.assertRaises(kith.FilterError) as caught:
            index.search(VECTORS[0], 3, filter="n = ")
        self.assertRegex(str(caught.exception), r"(?s)expected a value.*\^")
        for call in (lambda: index.count("n ="), lambda: index.delete_where("n ="), lambda: next(index.pages(filter="n =")),
                     lambda: index.facet("n", filter="n ="), lambda: index.explain("n ="),
                     lambda: index.search_batch(VECTORS[:2], 1, filter="n =")):
            with self.assertRaisesRegex(kith.FilterError, "expected a value"):
                call()
        with self.assertRaisesRegex(kith.FilterError, "n"):
            index.search(VECTORS[0], 3, filter='n = "text"')
        with self.assertRaises(kith.FilterError):
            index.search(VECTORS[0], 3, filter="nope = 1", strict=True)
        with self.assertRaises(kith.FilterError):
            index.search(VECTORS[0], 3, filter="n = 1\0 or")
        with self.assertRaisesRegex(kith.PayloadError, "byte|JSON"):
            index.upsert("a", VECTORS[0], '{"n": }')
        with self.assertRaises(ValueError):
            index.upsert("a", VECTORS[0], {"n": float("nan")})
        with self.assertRaises(kith.PayloadError):
            index.merge_payload("a", '[1]')

    def test_a_batch_is_whole_or_nothing(self):
        index = self.make("batches")
        with index.batch() as batch:
            batch.upsert("a", VECTORS[0], {"n": 1})
            batch.upsert("b", VECTORS[1])
            batch.delete("nobody")
            batch.merge_payload("b", {"n": 2})
            self.assertEqual(len(batch), 4)
            self.assertEqual(len(index), 0)
        self.assertEqual([batch.found(i) for i in range(4)], [True, True, False, True])
        self.assertEqual((batch.commit_info.epoch, len(index)), (index.epoch, 2))
        with self.assertRaises(IndexError):
            batch.found(4)
        with self.assertRaises(RuntimeError):
            with index.batch() as batch:
                batch.upsert("c", VECTORS[2])
                raise RuntimeError
        self.assertNotIn("c", index)
        with self.assertRaises(kith.NotFiniteError):
            index.batch().upsert("c", np.full(DIM, np.nan, np.float32))

    def test_a_writer_brings_everything(self):
        index = self.make("pipes")
        with index.writer(depth=4, batch_size=50) as writer:
            for i, v in enumerate(VECTORS[:777]):
                writer.upsert(f"w{i}", v, {"n": i})
            writer.delete("w3")
            writer.delete("nobody")
        self.assertEqual(writer.count, 779)
        self.assertEqual(len(index), 776)
        self.assertEqual(index.fetch("w776").payload, {"n": 776})
        loaded = index.load(VECTORS[:10].astype(np.float64), np.arange(100, 110), [{"m": i} for i in range(10)])
        self.assertEqual(loaded.count, 10)
        self.assertEqual(index.fetch("109").payload, {"m": 9})
        index.load(VECTORS[:2], ["ä", "ö"])
        np.testing.assert_array_equal(index.get("ö"), VECTORS[1])

    def test_a_load_that_cannot_be_says_where(self):
        index = self.make("wrong")
        with self.assertRaisesRegex(kith.DimensionError, r"\(3, 4\)"):
            index.load(np.zeros((3, 4), np.float32))
        with self.assertRaisesRegex(ValueError, "row 2"):
            index.load(VECTORS[:3], ["a", "b"])
        with self.assertRaisesRegex(ValueError, "more ids"):
            index.load(VECTORS[:3], ["a", "b", "c", "d"])
        bad = VECTORS[:1000].copy()
        bad[900, 0] = np.nan
        with self.assertRaisesRegex(kith.NotFiniteError, "row 900"):
            index.load(bad)
        full = self.make("full", max_vectors=64, fixed=True)
        with self.assertRaisesRegex(kith.FullError, "is the first that is missing"):
            full.load(VECTORS, batch_size=10)
        self.assertLessEqual(len(full), 64)

    def test_waits_see_what_others_write(self):
        index = self.make("waits")
        with self.assertRaises(TimeoutError):
            index.wait_epoch(index.epoch + 1, 0.05)
        seen = []
        begun = index.epoch

        def watch():
            for epoch in index.epochs(begun, support.PATIENCE):
                seen.append(epoch)
                if epoch >= begun + 3:
                    return
        watcher = threading.Thread(target=watch)
        watcher.start()
        for i in range(3):
            index.upsert(i, VECTORS[i])
        watcher.join(support.PATIENCE)
        self.assertFalse(watcher.is_alive())
        self.assertEqual(seen[-1], begun + 3)
        self.assertEqual(seen, sorted(set(seen)))
        self.assertEqual(list(index.epochs(timeout=0.01)), [])


class Collections(Filled):
    def test_names_that_are_none(self):
        with self.assertRaises(kith.NoCollectionError) as caught:
            kith.open("nobody", run_dir=self.run_dir)
        self.assertIn('nobody', str(caught.exception))
        self.assertEqual((caught.exception.name, caught.exception.code), ("KITH_E_NO_COLLECTION", lib.KITH_E_NO_COLLECTION))
        with self.assertRaises(kith.NameError):
            kith.create("a b", 3, run_dir=self.run_dir)
        with self.assertRaises(kith.NameError):
            kith.open("points\0x", run_dir=self.run_dir)
        with self.assertRaises(kith.ExistsError):
            kith.create("points", 3, run_dir=self.run_dir)
        with self.assertRaisesRegex(ValueError, "l2, cosine, ip"):
            kith.create("b", 3, "euclid", run_dir=self.run_dir)
        with self.assertRaises(kith.NoCollectionError):
            kith.open("late", run_dir=self.run_dir, attach_wait=0.0)
        with self.assertRaises(kith.NoDaemonError):
            kith.create("b", 3, run_dir=self.daemon.top)

    def test_backup_restore_alter_optimize_drop(self):
        index = self.make("whole", metric="cosine")
        index.load(VECTORS)
        path = os.path.join(self.daemon.top, "whole.kith")
        self.assertEqual(index.backup(path), index.epoch)
        with self.assertRaises(OSError) as caught:
            index.backup(path)
        self.assertEqual((caught.exception.errno, caught.exception.name), (17, "EEXIST"))
        index.backup(path, replace=True)
        self.assertEqual(kith.restore("again", path, run_dir=self.run_dir), len(VECTORS))
        self.addCleanup(kith.drop, "again", run_dir=self.run_dir)
        before = index.search(VECTORS[0], 5, exact=True).ids
        with kith.open("again", run_dir=self.run_dir) as again:
            self.assertEqual(again.search(VECTORS[0], 5, exact=True).ids, before)
        done = index.alter(quantization="sq8")
        self.assertEqual((done.done, done.live_count, index.stats().quantization), ("copied", len(VECTORS), "sq8"))
        self.assertEqual(index.optimize().done, "copied")
        self.assertEqual(index.search(VECTORS[0], 5, exact=True).ids, before)
        self.assertEqual(index.checkpoint(), index.epoch)
        with self.assertRaises(ValueError):
            index.upsert("zero", np.zeros(DIM, np.float32))

    def test_a_dropped_collection_says_so(self):
        kith.create("gone", 3, run_dir=self.run_dir)
        index = kith.open("gone", run_dir=self.run_dir)
        kith.drop("gone", run_dir=self.run_dir)
        with self.assertRaises(kith.ReplacedError):
            support.wait_until("noticed", lambda: index.search([1, 2, 3], 1) is None)

    def test_a_closed_index_is_an_error_and_no_crash(self):
        with kith.open("points", run_dir=self.run_dir) as index:
            batch, writer, hits = index.batch(), index.writer(), index.search(VECTORS[0], 2)
        self.assertTrue(index.closed)
        for call in (lambda: index.search(VECTORS[0]), lambda: index.get("1"), lambda: index.epoch, lambda: len(index), index.stats,
                     lambda: index.search_batch(VECTORS[:2]), lambda: index.upsert("1", VECTORS[1]), lambda: list(index), index.snapshot):
            with self.assertRaisesRegex(ValueError, "closed"):
                call()
        self.assertEqual(hits.ids[0], "0")
        batch.upsert("1", VECTORS[1]) # they keep what they need
        batch.commit()
        writer.close()

    def test_every_code_has_an_exception(self):
        codes = [s for s in dir(lib) if s.startswith("KITH_E_")]
        self.assertGreater(len(codes), 38)
        from kith._errors import error_of
        for symbol in codes:
            e = error_of(getattr(lib, symbol))
            self.assertEqual(e.name, symbol)
            self.assertIsNot(type(e), kith.Error)
            self.assertIn(type(e).__name__, kith.__all__)
            again = pickle.loads(pickle.dumps(e))
            self.assertEqual((type(again), again.code, str(again)), (type(e), e.code, str(e)))
        self.assertEqual(error_of(-28).errno, 28)


class ThreadsAndForks(Filled):
    def test_threads_share_a_handle_beside_a_writer(self):
        index = kith.open("points", run_dir=self.run_dir)
        failures, done = [], threading.Event()

        def read(seed):
            rng = np.random.default_rng(seed)
            try:
                while not done.is_set():
                    i = int(rng.integers(1000))
                    if index.search(VECTORS[i], 3, ef=50).ids[0] != str(i):
                        failures.append(f"{i} does not find itself")
            except Exception as e: # noqa: BLE001 - whatever it is, it is a failure
                failures.append(e)
        threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for i in range(200):
            index.upsert(f"t{i}", VECTORS[i] + 10)
        done.set()
        for t in threads:
            t.join(support.PATIENCE)
        self.assertEqual(failures, [])
        for i in range(200):
            index.delete(f"t{i}")

    def test_calls_let_other_threads_run(self):
        """A wait of half a second in one thread, and another one counts meanwhile."""
        index, counted, begun = self.index, 0, threading.Event()

        def wait():
            begun.set()
            lib.kith_wait_epoch(index._p, index.epoch + 1000, 500) # one call of the library, not in slices
        t = threading.Thread(target=wait)
        t.start()
        begun.wait()
        while t.is_alive():
            counted += 1
            time.sleep(0.001)
        self.assertGreater(counted, 20)

    def test_a_close_beside_searches_is_safe(self):
        for _ in range(20):
            index = kith.open("points", run_dir=self.run_dir)
            outcomes = []

            def search(index=index, outcomes=outcomes):
                try:
                    while True:
                        index.search(VECTORS[0], 3)
                except ValueError as e:
                    outcomes.append(str(e))
            threads = [threading.Thread(target=search) for _ in range(3)]
            for t in threads:
                t.start()
            index.close()
            for t in threads:
                t.join(support.PATIENCE)
            self.assertEqual(outcomes, ["the index is closed"] * 3)

    def forked(self, f):
        """f() in a forked child; what it returned."""
        receive, send = multiprocessing.Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            try:
                send.send(f())
            except BaseException as e: # noqa: BLE001
                send.send(repr(e))
            os._exit(0)
        self.assertTrue(receive.poll(support.PATIENCE), "the child said nothing")
        value = receive.recv()
        os.waitpid(pid, 0)
        return value

    def test_a_forked_child_reads_and_writes_with_its_parents_handle(self):
        index = self.make("forks")
        index.load(VECTORS[:50])
        index.upsert("parent", VECTORS[60]) # its socket is the parent's

        def child():
            ids = index.search(VECTORS[5], 1).ids
            return ids, index.upsert("child", VECTORS[61])
        ids, epoch = self.forked(child)
        self.assertEqual(ids, ["5"])
        index.wait_epoch(epoch, support.PATIENCE)
        index.upsert("parent", VECTORS[62])
        self.assertIn("child", index)

    def test_a_writer_does_not_cross_a_fork(self):
        index = self.make("pipe_forks")
        writer = index.writer()
        writer.upsert("a", VECTORS[0])
        self.assertIn("does not survive a fork", self.forked(writer.close))
        self.assertEqual(writer.close().count, 1)

        def child():
            with index.writer() as w:
                w.upsert("b", VECTORS[1])
            return w.count
        self.assertEqual(self.forked(child), 1)

    def test_an_index_is_not_pickled(self):
        with self.assertRaisesRegex(TypeError, "open their own"):
            pickle.dumps(self.index)


class Death(support.WithDaemon):
    def test_reads_go_on_and_writes_say_so(self):
        run_dir = self.daemon.run
        kith.create("lasting", DIM, run_dir=run_dir)
        index = kith.open("lasting", run_dir=run_dir)
        index.load(VECTORS[:500])
        writer = index.writer()
        writer.upsert("w", VECTORS[0])
        before = index.search(VECTORS[3], 5, exact=True).ids
        self.daemon.kill()
        self.assertEqual(index.search(VECTORS[3], 5, exact=True).ids, before)
        with kith.open("lasting", run_dir=run_dir) as other:
            self.assertEqual(other.search(VECTORS[3], 5, exact=True).ids, before)
        self.assertFalse(index.stats().daemon_alive)
        with self.assertRaises(ConnectionError) as caught:
            index.upsert("x", VECTORS[0])
        self.assertIn(caught.exception.name, ("KITH_E_NO_DAEMON", "KITH_E_UNKNOWN_OUTCOME"))
        with self.assertRaises(kith.NoDaemonError):
            index.upsert("x", VECTORS[0])
        with self.assertRaises((kith.NoDaemonError, kith.UnknownOutcomeError)):
            writer.close()
        self.daemon.start()

        def written():
            try:
                return index.upsert("x", VECTORS[0])
            except ConnectionError:
                return 0
        support.wait_until("writes are taken again", written)
        self.assertIn("x", index)
        self.assertEqual(len(index), 501)
        with index.writer() as again:
            again.upsert("w", VECTORS[0])
        self.assertIn("w", index)


if __name__ == "__main__":
    support.main()
