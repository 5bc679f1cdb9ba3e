"""Writing many things: batches that are visible whole, and writers that send batches ahead of their answers."""
from __future__ import annotations

import os
import time
from functools import partial
from types import TracebackType
from typing import Any, Iterable, Literal, Sequence

import numpy as np

from ._args import Id, floats_of, id_bytes, rows_of
from ._errors import Error, error_of, fail
from ._hits import FLOATS
from ._library import NULL, ffi, lib, opts
from ._text import c_text
from ._types import DURABILITIES, Commit, Loaded, Payload, number_of, payload_bytes

SLICE_MS = 100       # a wait comes back so often, for Python's signals
_STALL_S = 120.0     # an answer that takes longer than this is not coming
_CHUNK = 4096        # rows that are converted at a time, where they have to be
_BATCH_BYTES = 1 << 20

REPLACE, MERGE, REMOVE = 0, 1, 2
_batch_upsert = lib.kith_batch_upsert


class _Keep:
    """The type of KEEP."""

    def __repr__(self) -> str:
        return "KEEP"


KEEP = _Keep()
"""In place of a payload: the one that the id has stays."""


def _free(handle: Any, close: Any, pointer: Any) -> None:
    """The handle is an argument so that it lives until what belongs to it has ended."""
    close(pointer)


def batch_new(handle: Any, durability: str | None) -> Any:
    b = lib.kith_batch_new(handle)
    if b == NULL:
        raise MemoryError
    b = ffi.gc(b, partial(_free, handle, lib.kith_batch_free))
    if durability is not None:
        lib.kith_batch_set_durability(b, number_of("durability", DURABILITIES, durability))
    return b


def payload_text(payload: Payload) -> Any:
    if isinstance(payload, str):
        return c_text(payload, lib.KITH_E_PAYLOAD, "a payload")
    return payload_bytes(payload)


def checked(how: int, text: Any) -> Any:
    """The text, after the library has looked at it: here is where its reasons are to be had."""
    error = ffi.new("struct kith_error *")
    rc = lib.kith_payload_check(how, text, error)
    if rc < 0:
        fail(rc, error)
    return text


def add(b: Any, id: Id, vector: Any, payload: Payload | _Keep) -> int:
    """Put an upsert into a batch; the library's answer."""
    pointer, n = floats_of(vector)
    if isinstance(payload, _Keep):
        return int(_batch_upsert(b, id_bytes(id), pointer, n))
    text = payload_text(payload)
    rc = int(lib.kith_batch_upsert_payload(b, id_bytes(id), pointer, n, text))
    if rc == lib.KITH_E_PAYLOAD:
        checked(REPLACE, text)
    return rc


class Batch:
    """Changes that become visible together or not at all, for one thread at a time.

        with index.batch() as b:
            b.upsert("a", vector)
            b.delete("b")
        b.commit_info.epoch

    Leaving the block commits; an exception in it does not. Without a block: commit().
    """

    def __init__(self, handle: Any, durability: str | None) -> None:
        self._b = batch_new(handle, durability)
        self.commit_info: Commit | None = None

    def upsert(self, id: Id, vector: Any, payload: Payload | _Keep = KEEP) -> None:
        self._added(add(self._b, id, vector, payload), id)

    def delete(self, id: Id) -> None:
        self._added(lib.kith_batch_delete(self._b, id_bytes(id)), id)

    def set_payload(self, id: Id, payload: Payload) -> None:
        self._change(id, REPLACE, payload_text(payload))

    def merge_payload(self, id: Id, patch: Payload) -> None:
        self._change(id, MERGE, payload_text(patch))

    def _change(self, id: Id, how: int, text: Any) -> None:
        rc = lib.kith_batch_set_payload(self._b, id_bytes(id), how, text)
        if rc == lib.KITH_E_PAYLOAD:
            checked(how, text)
        self._added(rc, id)

    def _added(self, rc: int, id: Id) -> None:
        if rc < 0:
            fail(rc, None, f"{id!r}")

    def __len__(self) -> int:
        return int(lib.kith_batch_count(self._b))

    def clear(self) -> None:
        lib.kith_batch_clear(self._b)

    def commit(self) -> Commit:
        """Send it and wait. The batch stays as it is: clear() it to fill it anew."""
        out = opts("commit")
        rc = lib.kith_batch_commit(self._b, out)
        if rc < 0:
            e = error_of(rc, out.error)
            e.failed_item = None if out.failed_item == 0xFFFFFFFF else int(out.failed_item)  # type: ignore[attr-defined]
            raise e
        self.commit_info = Commit(out.epoch, out.found, out.durable_epoch, out.lag_ms)
        return self.commit_info

    def found(self, item: int) -> bool:
        """Of the last commit: was there anything to delete, or to change the payload of, for this item?"""
        rc = lib.kith_batch_found(self._b, item)
        if rc < 0:
            raise IndexError(f"no item {item} of a commit")
        return bool(rc)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> Literal[False]:
        if kind is None:
            self.commit()
        return False


class Writer:
    """Many writes, in batches that are sent without waiting for each answer; for one thread at a time.

        with index.writer() as w:
            for id, vector in source:
                w.upsert(id, vector)

    Leaving the block sends what is left and waits for all answers. Each batch is visible whole; what a batch was refused for is raised by a later
    call, close() at the latest, and says from which write on something is missing. After a fork it belongs to the parent.
    """

    def __init__(self, handle: Any, dim: int, depth: int, batch_size: int, durability: str | None) -> None:
        p = ffi.new("kith_pipe **")
        rc = lib.kith_pipe_open(handle, depth, p)
        if rc < 0:
            fail(rc)
        self._p = ffi.gc(p[0], partial(_free, handle, lib.kith_pipe_close))
        self._b = batch_new(handle, durability)
        self._dim = dim
        if batch_size < 1:
            raise ValueError("batch_size is 1 or more")
        self._size = max(1, min(batch_size, _BATCH_BYTES // (4 * dim)))
        self._pid = os.getpid()
        self._filled = 0             # writes in the batch at hand
        self._sent = 0               # writes in those before it
        self._sizes: dict[int, int] = {}  # of the batches that are on their way, by the number of their first write
        self._out = opts("commit")
        self._token = ffi.new("uint64_t *")
        self._status = ffi.new("int *")
        self._error: Error | None = None
        self._missing: int | None = None
        self.count = 0               # writes that were acknowledged
        self.epoch = 0               # the highest epoch of theirs

    def upsert(self, id: Id, vector: Any, payload: Payload | _Keep = KEEP) -> None:
        self._added(self._again_if_full(lambda: add(self._b, id, vector, payload)), id)

    def delete(self, id: Id) -> None:
        """An id that is not there is none: it makes no difference here."""
        encoded = id_bytes(id)
        self._added(self._again_if_full(lambda: int(lib.kith_batch_delete(self._b, encoded))), id)

    def extend(self, vectors: Any, ids: Iterable[Id] | None = None, payloads: Iterable[Payload] | None = None) -> None:
        """Upsert every row of an array. ids: None for the row numbers. Contiguous float32, also of a file that is mapped, is read where it lies."""
        a = vectors if isinstance(vectors, np.ndarray) else np.asarray(vectors)
        if a.ndim != 2 or a.shape[1] != self._dim:
            rows_of(a, self._dim)
        n = len(a)
        names = iter(range(n) if ids is None else ids.tolist() if isinstance(ids, np.ndarray) else ids)
        of_payloads = None if payloads is None else iter(payloads)
        for first in range(0, n, _CHUNK):
            self._extend_rows(rows_of(a[first:first + _CHUNK], self._dim), names, of_payloads, first)
        for what, rest in (("ids", names), ("payloads", of_payloads)):
            if rest is not None and next(rest, None) is not None:
                raise ValueError(f"more {what} than the {n} vectors")

    def _extend_rows(self, rows: np.ndarray[Any, np.dtype[np.float32]], names: Any, payloads: Any, first: int) -> None:
        dim, size, b = self._dim, self._size, self._b
        pointer = ffi.from_buffer(FLOATS, rows)
        at = ffi.addressof(pointer, 0) if len(rows) else NULL
        for row in range(len(rows)):
            try:
                id = next(names)
                payload = None if payloads is None else next(payloads)
            except StopIteration:
                raise ValueError(f"the vectors have a row {first + row}, and the {'ids' if payloads is None else 'ids or payloads'} end before it") from None
            if payloads is None:
                rc = _batch_upsert(b, id_bytes(id), at, dim)
            else:
                rc = add(b, id, rows[row], payload)
            if rc < 0:
                if rc == lib.KITH_E_TOO_LARGE and self._filled:
                    self._submit()
                    rc = add(b, id, rows[row], KEEP if payloads is None else payload)
                if rc < 0:
                    fail(rc, None, f"row {first + row} ({id!r})")
            at += dim
            self._filled += 1
            if self._filled >= size or (payloads is not None and lib.kith_batch_bytes(b) >= _BATCH_BYTES):
                self._submit()

    def _again_if_full(self, put: Any) -> int:
        rc = int(put())
        if rc == lib.KITH_E_TOO_LARGE and self._filled:
            self._submit()
            rc = int(put())
        return rc

    def _added(self, rc: int, id: Id) -> None:
        if rc < 0:
            fail(rc, None, f"{id!r}")
        self._filled += 1
        if self._filled >= self._size or lib.kith_batch_bytes(self._b) >= _BATCH_BYTES:
            self._submit()

    def _submit(self) -> None:
        """Send the batch at hand; raises what was refused before."""
        self._own()
        if self._error is None and self._filled:
            while True:
                rc = lib.kith_pipe_submit(self._p, self._b, self._sent)
                if rc != -11: # -EAGAIN: as many as the pipe holds are on their way
                    break
                self._take()
            if rc < 0:
                self._refused(error_of(rc), self._sent)
            else:
                self._sizes[self._sent] = self._filled
        self._sent += self._filled
        self._filled = 0
        lib.kith_batch_clear(self._b)
        if self._error is not None:
            self._finish()

    def _take(self) -> None:
        """Take one answer."""
        deadline = time.monotonic() + _STALL_S
        while True:
            rc = lib.kith_pipe_next(self._p, SLICE_MS, self._token, self._status, self._out)
            if rc != 0 or time.monotonic() > deadline:
                break
        if rc <= 0: # the connection is lost: of what is on its way nobody knows what came of it
            self._refused(error_of(rc if rc < 0 else lib.KITH_E_TIMEOUT), min(self._sizes, default=self._sent))
            self._sizes.clear()
            return
        first = int(self._token[0])
        n = self._sizes.pop(first)
        status = self._status[0]
        if status < 0:
            item = self._out.failed_item
            self._refused(error_of(status, self._out.error), first + (item if item < n else 0))
            return
        self.count += n
        self.epoch = max(self.epoch, self._out.epoch)

    def _refused(self, e: Error, at: int) -> None:
        if self._error is None:
            self._error = e
        self._missing = at if self._missing is None else min(self._missing, at)

    def _own(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("a writer does not survive a fork: the parent goes on with it, the child opens another one")

    def _finish(self) -> None:
        while self._sizes:
            self._take()
        if self._error is not None:
            e = self._error
            message = f"{e} ({self.count} writes were acknowledged; number {self._missing}, from 0, is the first that is missing; repeating all of them does no harm)"
            raise type(e)(e.code, message) from e

    def close(self) -> Loaded:
        """Send what is left and wait for all answers."""
        self._submit()
        self._finish()
        return Loaded(self.count, self.epoch)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> Literal[False]:
        if kind is None:
            self.close()
        return False


def load(writer: Writer, vectors: Any, ids: Sequence[Id] | None, payloads: Iterable[Payload] | None) -> Loaded:
    with writer:
        writer.extend(vectors, ids, payloads)
    return Loaded(writer.count, writer.epoch)
