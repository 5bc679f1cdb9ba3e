"""An open collection."""
from __future__ import annotations

import json
import os
import time
from types import TracebackType
from typing import Any, Iterable, Iterator, Literal, Sequence

import numpy as np

from ._args import Id, floats_of, id_bytes, rows_of
from ._errors import Error, fail
from ._errors import TimeoutError as EpochTimeout
from ._hits import F32, FLOATS, BatchHits, Hits, Page, Record, distances_of, ids_of, info_of, payload_of, results, results_new
from ._library import NULL, ffi, lib, name_bytes, opts, taken, text
from ._text import c_text
from ._types import (DURABILITIES, KEEPS, METRICS, QUANTIZATIONS, Explanation, Facet, Loaded, Payload, Relayout, SearchOptions, Snapshot, Stats,
                     at_of, filled, number_of, paths, word_of)
from ._writer import KEEP, MERGE, REMOVE, REPLACE, SLICE_MS, Batch, Writer, _Keep, checked, load, payload_text

_AS_IS = 0xFFFFFFFF
_BATCH_QUERIES = 256  # of a batch of searches, whose results are held at a time

_search = lib.kith_search
_from_buffer = ffi.from_buffer
_ndarray = np.ndarray


class Index:
    """A collection, mapped read-only. Searches run in this process and go on when kithd is gone; writes go to kithd.

        with kith.open("docs") as index:
            for hit in index.search(query, k=10):
                print(hit.id, hit.distance)

    Threads share one freely; every call lets other Python threads run. A forked child goes on reading with it, on the same pages, and makes a
    connection of its own at its first write: open it before the workers are forked. close() may come at any time: calls that run end first.
    """

    dim: int
    metric: str
    name: str

    def __init__(self, name: str | os.PathLike[str], *, run_dir: str | os.PathLike[str] | None = None, attach_wait: float = 0.0,
                 prefault: bool = False, counters: bool = True) -> None:
        error = ffi.new("struct kith_error *")
        directory = name_bytes(run_dir)
        if directory != NULL:
            directory = ffi.new("char[]", directory)
        o = opts("open_opts", run_dir=directory, attach_wait_ms=int(attach_wait * 1000), prefault=prefault, error=error,
                 counters=0 if counters else 1)
        out = ffi.new("kith **")
        self._p = NULL
        encoded = name_bytes(name)
        if b"\0" in encoded:
            fail(lib.KITH_E_NAME, None, repr(name))
        rc = lib.kith_open(encoded, o, out)
        if rc < 0:
            fail(rc, error)
        # Whoever is in a call holds a reference to the pointer: kith_close comes after the last of them.
        self._p = ffi.gc(out[0], lib.kith_close)
        self.dim = int(lib.kith_dim(self._p))
        self.metric = word_of(METRICS, lib.kith_metric_of(self._p))
        self.name = text(lib.kith_name(self._p))

    def close(self) -> None:
        self._p = NULL

    @property
    def closed(self) -> bool:
        return bool(self._p == NULL)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> Literal[False]:
        self.close()
        return False

    def __repr__(self) -> str:
        return f"<kith.Index {self.name!r}, {self.dim}-d {self.metric}{', closed' if self.closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError("an Index is not pickled: a forked worker goes on with its parent's, others open their own")

    def _use(self) -> Any:
        p = self._p
        if p == NULL:
            raise ValueError("the index is closed")
        return p

    # ---- searching

    def search(self, query: Any, k: int = 10, *, ef: int = 0, exact: bool = False, recall: float = 0.0, filter: str | None = None,
               strict: bool = False, payloads: bool = False, fields: Sequence[str] | None = None, at: Snapshot | None = None,
               timeout: float | None = None, options: SearchOptions | None = None) -> Hits:
        """The k nearest neighbours of query, in one snapshot. A float32 array is read where it lies. The rest is as in SearchOptions; options given
        as a whole save making them."""
        if ef or exact or recall or filter is not None or strict or payloads or fields is not None or at is not None or timeout is not None:
            if options is not None:
                raise TypeError("options are given as a whole or one by one, not both")
            options = SearchOptions(ef=ef, exact=exact, recall=recall, filter=filter, strict=strict, payloads=payloads, fields=fields, at=at,
                                    timeout=timeout)
        p = self._p
        r = results()
        if type(query) is _ndarray and query.dtype is F32 and query.ndim == 1 and (flags := query.flags).c_contiguous and flags.aligned:
            pointer = _from_buffer(FLOATS, query)
            n = len(query)
        else:
            pointer, n = floats_of(query)
        rc = _search(p, pointer, n, k, NULL if options is None else _pointer_of(options), r)
        if rc < 0:
            rc = self._search_failed(rc, lambda o: _search(p, pointer, n, k, o, r), options)
        return Hits(r, rc)

    def _search_failed(self, rc: int, again: Any, options: SearchOptions | None) -> int:
        """Raise the right exception. Of a filter the library says more where it is given room to; as options are shared by threads, that
        room is made now, for a second try, whose answer counts should it be one."""
        self._use()
        if rc == lib.KITH_E_DIMENSION:
            fail(rc, None, f"a query for a collection of {self.dim} dimensions")
        if rc == lib.KITH_E_FILTER and options is not None:
            error = ffi.new("struct kith_error *")
            o = ffi.new("struct kith_search_opts *", options.pointer[0])
            o.error = error
            rc = int(again(o))
            if rc >= 0:
                return rc
            fail(rc, error)
        fail(rc)

    def search_id(self, id: Id, k: int = 10, *, options: SearchOptions | None = None, **more: Any) -> Hits:
        """Neighbours of a stored vector, itself excluded. Options as of search()."""
        options = SearchOptions(**more) if more else options
        r = results()
        encoded = id_bytes(id)
        p = self._use()

        def again(o: Any) -> int:
            return int(lib.kith_search_id(p, encoded, k, o, r))

        rc = again(NULL if options is None else _pointer_of(options))
        if rc < 0:
            if rc == lib.KITH_E_NOT_FOUND:
                fail(rc, None, repr(id))
            rc = self._search_failed(rc, again, options)
        return Hits(r, rc)

    def search_batch(self, queries: Any, k: int = 10, *, info: bool = False, options: SearchOptions | None = None, **more: Any) -> BatchHits:
        """A search for each row of queries (n x dim). Each takes its own snapshot, unless at is one for all. Options as of search(); info: with
        what each search did. Faster than one by one: walks of several queries are interleaved. To use several CPUs give parts to threads."""
        options = SearchOptions(**more) if more else options
        p = self._use()
        rows = rows_of(queries, self.dim)
        n = len(rows)
        k = min(k, 65536) if k >= 1 else k
        found = BatchHits(n, max(k, 0))
        if n == 0:
            return found
        ids: list[list[str]] = []
        with_payloads = options is not None and options.pointer.payloads
        loads: list[list[dict[str, Any] | None]] = []
        infos = []
        rs = [results_new() for _ in range(min(n, _BATCH_QUERIES))]
        out = ffi.new("kith_results *[]", rs)
        pointer = _from_buffer(FLOATS, rows)
        distances = _from_buffer(FLOATS, found.distances)
        failed = ffi.new("size_t *")
        for first in range(0, n, _BATCH_QUERIES):
            count = min(_BATCH_QUERIES, n - first)
            part = ffi.addressof(pointer, first * self.dim)

            def again(o: Any) -> int:
                return int(lib.kith_search_batch(p, part, self.dim, count, k, o, out, failed))

            rc = again(NULL if options is None else _pointer_of(options))
            if rc < 0:
                try:
                    self._search_failed(rc, again, options)
                except Error as e:
                    raise type(e)(e.code, f"query {first + failed[0]}: {e}") from None
            for i in range(count):
                hits = lib.kith_results_count(rs[i])
                lib.kith_results_distances(rs[i], ffi.addressof(distances, (first + i) * k), hits)
                ids.append(ids_of(rs[i], hits))
                if with_payloads:
                    loads.append([payload_of(rs[i], h) for h in range(hits)])
                if info:
                    infos.append(info_of(rs[i]))
        found.ids = ids
        found.payloads = loads if with_payloads else None
        found.infos = infos if info else None
        return found

    # ---- reading

    def get(self, id: Id, *, out: np.ndarray[Any, np.dtype[np.float32]] | None = None,
            at: Snapshot | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The vector of id, written into out where that is given: a writable float32 array of dim elements."""
        if out is None:
            out = np.empty(self.dim, F32)
        elif out.dtype != F32 or out.shape != (self.dim,) or not out.flags.carray:
            raise ValueError(f"out is no contiguous, writable float32 array of {self.dim} elements")
        pointer = _from_buffer(FLOATS, out, True)
        if at is None:
            rc = lib.kith_get(self._use(), id_bytes(id), pointer, self.dim, NULL)
        else:
            rc = lib.kith_get_at(self._use(), _snapshot(at), id_bytes(id), pointer, self.dim)
        if rc < 0:
            fail(rc, None, repr(id))
        return out

    def fetch(self, id: Id, *, vector: bool = True, payload: bool = True, fields: Sequence[str] | None = None,
              at: Snapshot | None = None) -> Record:
        """Everything of one id, of one epoch."""
        o = opts("fetch_opts", vector=vector, payloads=payload or fields is not None)
        o.at.epoch, o.at.timeline = at_of(at)
        if fields is not None:
            pointer_and_texts = paths(fields)
            o.fields = pointer_and_texts[0]
            o.field_count = len(pointer_and_texts[1])
        r = results()
        encoded = id_bytes(id)
        rc = lib.kith_fetch(self._use(), encoded, o, r)
        if rc < 0:
            fail(rc, None, repr(id))
        page = Page(r, 1, self.dim)
        vectors = page.vectors
        return Record(encoded.decode(), None if vectors is None else vectors[0].copy(), payload_of(r, 0) if payload or fields is not None else None,
                      page.info.epoch)

    def exists(self, id: Id, *, at: Snapshot | None = None) -> bool:
        p, encoded = self._use(), id_bytes(id)
        rc = lib.kith_exists(p, encoded) if at is None else lib.kith_exists_at(p, _snapshot(at), encoded)
        if rc < 0:
            fail(rc, None, repr(id))
        return bool(rc)

    def __contains__(self, id: Id) -> bool:
        return self.exists(id)

    def count(self, filter: str | None = None, *, at: Snapshot | None = None) -> int:
        """Vectors that are visible, or that fulfil a filter."""
        p, out = self._use(), ffi.new("uint64_t *")
        if filter is not None:
            error = ffi.new("struct kith_error *")
            rc = lib.kith_count_filter(p, _filter(filter), _snapshot(at), out, error)
            if rc < 0:
                fail(rc, error)
        else:
            rc = lib.kith_count(p, out) if at is None else lib.kith_count_at(p, _snapshot(at), out)
            if rc < 0:
                fail(rc)
        return int(out[0])

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool: # an index without vectors is one
        return not self.closed

    def pages(self, *, limit: int = 0, vectors: bool = False, payloads: bool = False, fields: Sequence[str] | None = None,
              filter: str | None = None, at: Snapshot | None = None, cursor: str | None = None) -> Iterator[Page]:
        """All ids, page by page, in an order that stays; from cursor on, where it is given. A page may be short, or empty, before the last one."""
        error = ffi.new("struct kith_error *")
        o = opts("scroll_opts", limit=limit, vectors=vectors, payloads=payloads or fields is not None, error=error)
        o.at.epoch, o.at.timeline = at_of(at)
        condition = NULL if filter is None else ffi.new("char[]", _filter(filter))
        o.filter = condition
        if fields is not None:
            pointer_and_texts = paths(fields)
            o.fields = pointer_and_texts[0]
            o.field_count = len(pointer_and_texts[1])
        while True:
            r = results()
            rc = lib.kith_scroll(self._use(), NULL if cursor is None else c_text(cursor, lib.KITH_E_CURSOR, "a cursor"), o, r)
            if rc < 0:
                fail(rc, error)
            page = Page(r, rc, self.dim)
            yield page
            cursor = page.cursor
            if cursor is None:
                return

    def __iter__(self) -> Iterator[str]:
        """All ids."""
        for page in self.pages():
            yield from page.ids

    def facet(self, field: str, *, limit: int = 0, filter: str | None = None, at: Snapshot | None = None) -> Facet:
        """The values of a field and how many vectors have each, exact at one epoch."""
        error = ffi.new("struct kith_error *")
        o = opts("facet_opts", limit=limit, error=error)
        o.at.epoch, o.at.timeline = at_of(at)
        condition = NULL if filter is None else ffi.new("char[]", _filter(filter))
        o.filter = condition
        out = ffi.new("kith_facet **")
        rc = lib.kith_facet_of(self._use(), c_text(field, lib.KITH_E_PAYLOAD, "a field"), o, out)
        if rc < 0:
            fail(rc, error)
        f = ffi.gc(out[0], lib.kith_facet_free)
        value, times, values = ffi.new("struct kith_filter_value *"), ffi.new("uint64_t *"), []
        for i in range(lib.kith_facet_count(f)):
            lib.kith_facet_value(f, i, value, times)
            v: str | int | float | bool
            if value.type == lib.KITH_FILTER_STRING:
                v = text(value.string)
            elif value.type == lib.KITH_FILTER_DOUBLE:
                v = value.number
            else:
                v = bool(value.integer) if value.type == lib.KITH_FILTER_BOOL else int(value.integer)
            values.append((v, int(times[0])))
        info = opts("facet_info")
        lib.kith_facet_info(f, info)
        return Facet(info.epoch, info.vectors, getattr(info, "with"), info.distinct, info.other, tuple(values))

    def explain(self, filter: str, k: int = 10, ef: int = 0) -> Explanation:
        """What a search under a filter would do now."""
        error, out = ffi.new("struct kith_error *"), opts("explanation")
        rc = lib.kith_explain(self._use(), _filter(filter), k, ef, out, error)
        if rc < 0:
            fail(rc, error)
        found: Explanation = filled(Explanation, out)
        return found

    def stats(self) -> Stats:
        out = opts("stats")
        rc = lib.kith_stats(self._use(), out)
        if rc < 0:
            fail(rc)
        found: Stats = filled(Stats, out)
        return found

    def daemon_stats(self) -> dict[str, Any]:
        """What kithd itself knows of the collection; kithd(8) lists the members."""
        out = ffi.new("char **")
        rc = lib.kith_daemon_stats(self._use(), out)
        if rc < 0:
            fail(rc)
        value: dict[str, Any] = json.loads(taken(out))
        return value

    def memory(self) -> dict[str, Any]:
        """What each byte of the collection's memory is used for, by region; see struct kith_memory."""
        out = opts("memory")
        rc = lib.kith_memory(self._use(), out)
        if rc < 0:
            fail(rc)
        names = ("reserved", "taken", "live", "dead", "resting", "pending", "free", "slack", "ahead")
        regions = {text(g.name): {n: int(getattr(g, n)) for n in names} for g in [out.all, *out.regions] if g.name[0] != b"\0"}
        return {"file_bytes": out.file_bytes, "next_bytes": out.next_bytes, "old_bytes": out.old_bytes, "live_count": out.live_count,
                "regions": regions}

    def recall_curve(self, k: int = 10) -> list[tuple[int, float]]:
        """(ef, recall) for 1, 10 or 100 neighbours as kithd has measured it; empty while it has not."""
        out = opts("recall")
        rc = lib.kith_recall_curve_of(self._use(), k, out)
        if rc < 0:
            fail(rc)
        return [(int(p.ef), float(p.recall)) for p in out.points[0:rc]]

    # ---- moments

    @property
    def epoch(self) -> int:
        """The last epoch that is visible; 0: the collection is gone."""
        return int(lib.kith_epoch(self._use()))

    @property
    def timeline(self) -> int:
        return int(lib.kith_timeline(self._use()))

    def snapshot(self) -> Snapshot:
        """Now, to be read again later: at= of search(), get(), count() and others. Two numbers, for any process; it pins nothing."""
        out = ffi.new("struct kith_snapshot *")
        rc = lib.kith_snapshot(self._use(), out)
        if rc < 0:
            fail(rc)
        return Snapshot(out.epoch, out.timeline)

    def wait_epoch(self, epoch: int, timeout: float | None = None) -> None:
        """Sleep until epoch is visible. Asks no daemon. After timeout seconds: TimeoutError."""
        self._wait(lib.kith_wait_epoch, epoch, timeout)

    def wait_durable(self, epoch: int, timeout: float | None = None) -> None:
        """Sleep until epoch is on stable storage."""
        self._wait(lib.kith_wait_durable, epoch, timeout)

    def _wait(self, wait: Any, epoch: int, timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        while True: # in slices, so that Ctrl-C is heard
            left = SLICE_MS if end is None else max(0, min(SLICE_MS, int((end - time.monotonic()) * 1000) + 1))
            rc = wait(self._use(), epoch, left)
            if rc == 0:
                return
            if rc != lib.KITH_E_TIMEOUT or (end is not None and time.monotonic() >= end):
                fail(rc)

    def epochs(self, since: int | None = None, timeout: float | None = None) -> Iterator[int]:
        """The visible epoch, each time that it has risen above since (default: now): what to wait for to react to writes. Ends when timeout seconds
        pass without any. Several commits between two looks are one."""
        seen = self.epoch if since is None else since
        while True:
            try:
                self.wait_epoch(seen + 1, timeout)
            except EpochTimeout:
                return
            seen = self.epoch
            yield seen

    # ---- writing

    def set_durability(self, durability: str) -> None:
        """For later single writes and batches: "durable" (at first), "applied" or "none", see enum kith_durability."""
        rc = lib.kith_set_durability(self._use(), number_of("durability", DURABILITIES, durability))
        if rc < 0:
            fail(rc)

    def upsert(self, id: Id, vector: Any, payload: Payload | _Keep = KEEP) -> int:
        """Put a vector, and its payload where one is given; the epoch at which every reader sees it."""
        pointer, n = floats_of(vector)
        epoch, encoded, p = ffi.new("uint64_t *"), id_bytes(id), self._use()
        if isinstance(payload, _Keep):
            rc = lib.kith_upsert(p, encoded, pointer, n, epoch)
        else:
            t = payload_text(payload)
            rc = lib.kith_upsert_payload(p, encoded, pointer, n, t, epoch)
            if rc == lib.KITH_E_PAYLOAD:
                checked(REPLACE, t)
        if rc < 0:
            fail(rc, None, repr(id))
        return int(epoch[0])

    def delete(self, id: Id) -> int:
        """NotFoundError when there was nothing to delete."""
        epoch = ffi.new("uint64_t *")
        rc = lib.kith_delete(self._use(), id_bytes(id), epoch)
        if rc < 0:
            fail(rc, None, repr(id))
        return int(epoch[0])

    def delete_where(self, filter: str) -> int:
        """Delete every vector that fulfils a filter, in batches of 1000; how many these were."""
        error, count = ffi.new("struct kith_error *"), ffi.new("uint64_t *")
        rc = lib.kith_delete_filter(self._use(), _filter(filter), count, NULL, error)
        if rc < 0:
            fail(rc, error)
        return int(count[0])

    def set_payload(self, id: Id, payload: Payload) -> int:
        """Another payload, or None; the vector stays."""
        return self._change(id, REPLACE, payload_text(payload))

    def merge_payload(self, id: Id, patch: Payload) -> int:
        """A JSON merge patch: None takes a member away."""
        return self._change(id, MERGE, payload_text(patch))

    def remove_fields(self, id: Id, fields: Sequence[str]) -> int:
        if isinstance(fields, str):
            raise TypeError("fields is a sequence of dotted paths, not one string")
        return self._change(id, REMOVE, json.dumps(list(fields)).encode())

    def _change(self, id: Id, how: int, t: Any) -> int:
        epoch = ffi.new("uint64_t *")
        rc = lib.kith_set_payload(self._use(), id_bytes(id), how, t, epoch)
        if rc == lib.KITH_E_PAYLOAD:
            checked(how, t)
        if rc < 0:
            fail(rc, None, repr(id))
        return int(epoch[0])

    def batch(self, durability: str | None = None) -> Batch:
        """Changes that become visible together."""
        return Batch(self._use(), durability)

    def writer(self, *, depth: int = 8, batch_size: int = 256, durability: str | None = None) -> Writer:
        """Many writes, sent ahead of their answers: up to depth batches of batch_size writes are on their way."""
        return Writer(self._use(), self.dim, depth, batch_size, durability)

    def load(self, vectors: Any, ids: Sequence[Id] | None = None, payloads: Iterable[Payload] | None = None, *, depth: int = 8,
             batch_size: int = 256, durability: str | None = None) -> Loaded:
        """Upsert every row of an array (n x dim), by a writer. ids: None for the row numbers from 0, as kith load has it. A contiguous float32 array,
        also of np.load(file, mmap_mode="r"), is not copied."""
        return load(self.writer(depth=depth, batch_size=batch_size, durability=durability), vectors, ids, payloads)

    def flush(self) -> int:
        """Wait until all that kithd accepted before is durable and visible."""
        epoch = ffi.new("uint64_t *")
        rc = lib.kith_flush(self._use(), epoch)
        if rc < 0:
            fail(rc)
        return int(epoch[0])

    # ---- the collection as a whole

    def checkpoint(self) -> int:
        epoch, error = ffi.new("uint64_t *"), ffi.new("struct kith_error *")
        rc = lib.kith_checkpoint(self._use(), epoch, error)
        if rc < 0:
            fail(rc, error)
        return int(epoch[0])

    def backup(self, path: str | os.PathLike[str], *, replace: bool = False) -> int:
        """Write a back-up to a file, while everybody goes on; the last epoch that it holds."""
        error, info = ffi.new("struct kith_error *"), opts("backup_info")
        o = opts("backup_opts", replace=replace, error=error)
        rc = lib.kith_backup(self._use(), os.fsencode(path), o, info)
        if rc < 0:
            fail(rc, error)
        return int(info.epoch)

    def alter(self, *, m: int = 0, ef_construction: int = 0, quantization: str | None = None, keep: str | None = None,
              max_vectors: int = 0) -> Relayout:
        """Another layout, while everybody goes on reading and writing. Waits for it."""
        error, info = ffi.new("struct kith_error *"), opts("alter_info")
        o = opts("alter_opts", m=m, ef_construction=ef_construction, max_vectors=max_vectors, error=error,
                 quantization=_AS_IS if quantization is None else number_of("quantization", QUANTIZATIONS, quantization),
                 keep=_AS_IS if keep is None else number_of("keep", KEEPS, keep))
        rc = lib.kith_alter(self._use(), o, info)
        if rc < 0:
            fail(rc, error)
        done: Relayout = filled(Relayout, info)
        return done

    def optimize(self) -> Relayout:
        """The segment built anew, as it is."""
        error, info = ffi.new("struct kith_error *"), opts("alter_info")
        rc = lib.kith_optimize(self._use(), info, error)
        if rc < 0:
            fail(rc, error)
        done: Relayout = filled(Relayout, info)
        return done


def _pointer_of(options: SearchOptions) -> Any:
    """The struct of options; a copy with the deadline of this call where there is one."""
    if options.timeout_ns is None:
        return options.pointer
    o = ffi.new("struct kith_search_opts *", options.pointer[0])
    o.deadline_ns = time.monotonic_ns() + options.timeout_ns
    return o


def _snapshot(at: Snapshot | None) -> Any:
    return NULL if at is None else ffi.new("struct kith_snapshot *", at_of(at))


def _filter(filter: str) -> bytes:
    return c_text(filter, lib.KITH_E_FILTER, "a filter")
