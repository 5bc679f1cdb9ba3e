"""What a search found: a kith_results of the library, read when it is asked for.

A kith_results is used again: its buffers have grown to what searches need, so that the library allocates nothing. Hits own one for
as long as they live, and give it back to a pool.
"""
from __future__ import annotations

import json
from functools import partial
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Union, overload

import numpy as np

from ._library import NULL, ffi, lib, opts, text
from ._types import SearchInfo, filled

F32 = np.dtype(np.float32)
FLOATS = ffi.typeof("float[]")
_CHARS = ffi.typeof("char[]")
_POOL_MAX = 64       # results that wait to be used again
_POOLED_HITS = 1024  # larger ones are freed: what one large answer took is not kept for ever

_uncleared = ffi.new_allocator(should_clear_after_alloc=False)
_distances = lib.kith_results_distances
_ids = lib.kith_results_ids
_pool: list[Any] = []  # appending and popping are atomic; a forked child has a copy of its own


def results_new() -> Any:
    r = lib.kith_results_new()
    if r == NULL:
        raise MemoryError
    return ffi.gc(r, lib.kith_results_free)


def results() -> Any:
    """A kith_results that nobody uses."""
    try:
        return _pool.pop()
    except IndexError:
        return results_new()


def ids_of(r: Any, count: int) -> list[str]:
    """All ids of r, count of them. They hold no NUL, so that one text is taken apart."""
    if count == 0:
        return []
    size = 32 * count
    block = _uncleared(_CHARS, size)
    need = _ids(r, block, size)
    if need > size:
        block = _uncleared(_CHARS, need)
        _ids(r, block, need)
    return str(ffi.buffer(block, need - 1), "utf-8").split("\0")


def distances_of(r: Any, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    out = np.empty(count, F32)
    _distances(r, ffi.from_buffer(FLOATS, out), count)
    return out


def payload_of(r: Any, i: int) -> dict[str, Any] | None:
    p = lib.kith_results_payload(r, i)
    return None if p == NULL else json.loads(ffi.string(p))


def info_of(r: Any) -> SearchInfo:
    info = opts("search_info")
    lib.kith_results_info(r, info)
    found: SearchInfo = filled(SearchInfo, info)
    return found


class Hit(NamedTuple):
    id: str
    distance: float
    payload: Optional[dict[str, Any]] = None  # where payloads were asked for, and the id has one


def _nothing(_owner: Any, _pointer: Any) -> None:
    """What has to be done when a view of an owner's memory is gone: nothing, but until then the owner lives."""


class _Answer:
    """What all answers have: ids, payloads, and a kith_results."""

    __slots__ = ("_r", "_count", "_id_list", "_payload_list")

    def __init__(self, r: Any, count: int) -> None:
        self._r = r
        self._count = count
        self._id_list: list[str] | None = None
        self._payload_list: list[dict[str, Any] | None] | None = None

    def __del__(self, _pool: list[Any] = _pool, _most: int = _POOL_MAX, _hits: int = _POOLED_HITS) -> None:
        if self._count <= _hits and len(_pool) < _most:
            _pool.append(self._r)

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> list[str]:
        """Ids, nearest first; of a page, in the collection's own order."""
        found = self._id_list
        if found is None:
            found = self._id_list = ids_of(self._r, self._count)
        return found

    @property
    def payloads(self) -> list[dict[str, Any] | None]:
        """Payloads, where they were asked for; None for an id that has none."""
        found = self._payload_list
        if found is None:
            found = self._payload_list = [payload_of(self._r, i) for i in range(self._count)]
        return found

    def payload_json(self, i: int) -> str | None:
        """The payload of number i as the text that the library gives: without white space, keys in the order of their bytes."""
        if not 0 <= i < self._count:
            raise IndexError(i)
        p = lib.kith_results_payload(self._r, i)
        return None if p == NULL else text(p)

    @property
    def info(self) -> SearchInfo:
        """What the search did: epoch, work, ef, plan."""
        return info_of(self._r)


class Hits(_Answer, Sequence[Hit]):
    """The neighbours that a search found, nearest first: a sequence of Hit, or ids and distances as a whole.

    They are copies, and stay as they are whatever is written meanwhile. Nothing of them is made before it is asked for.
    """

    __slots__ = ("_distance_array",)

    def __init__(self, r: Any, count: int) -> None:
        self._r = r
        self._count = count
        self._id_list = self._payload_list = None
        self._distance_array: Any = None

    @property
    def distances(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32, written by the library into the array itself. Smaller is nearer: l2 squared, 1 - cos, 1 - dot."""
        found: Any = self._distance_array
        if found is None:
            self._distance_array = found = distances_of(self._r, self._count)
        return found  # type: ignore[no-any-return]

    @property
    def notice(self) -> str | None:
        """What is worth knowing of a search under a filter, as that nothing has a field of it."""
        p = lib.kith_results_notice(self._r)
        return None if p == NULL else text(p)

    def _hit(self, i: int) -> Hit:
        return Hit(self.ids[i], float(self.distances[i]), self.payloads[i])

    @overload
    def __getitem__(self, i: int) -> Hit: ...
    @overload
    def __getitem__(self, i: slice) -> List[Hit]: ...
    def __getitem__(self, i: Union[int, slice]) -> Union[Hit, List[Hit]]:
        if isinstance(i, slice):
            return [self._hit(n) for n in range(*i.indices(self._count))]
        if not -self._count <= i < self._count:
            raise IndexError("hit out of range")
        return self._hit(i % self._count)

    def __iter__(self) -> Iterator[Hit]:
        return map(Hit, self.ids, self.distances.tolist(), self.payloads)

    def __repr__(self) -> str:
        shown = ", ".join(f"{h.id!r}: {h.distance:g}" for h in self[:10])
        return f"<Hits {shown}{', ...' if self._count > 10 else ''}>"


class BatchHits:
    """What a batch of searches found. distances has a row for each query, with NaN behind the last hit; ids has a list for each."""

    __slots__ = ("ids", "distances", "payloads", "infos")

    def __init__(self, n: int, k: int) -> None:
        self.ids: list[list[str]] = [[]] * n
        self.distances: np.ndarray[Any, np.dtype[np.float32]] = np.full((n, k), np.nan, F32)
        self.payloads: list[list[dict[str, Any] | None]] | None = None
        self.infos: list[SearchInfo] | None = None

    def __len__(self) -> int:
        return len(self.ids)


class Page(_Answer):
    """Some of all ids, with their vectors and payloads where they were asked for; cursor says where the next page begins, None: nowhere."""

    __slots__ = ("_dim", "cursor")

    def __init__(self, r: Any, count: int, dim: int) -> None:
        super().__init__(r, count)
        self._dim = dim
        p = lib.kith_results_cursor(r)
        self.cursor: str | None = None if p == NULL else text(p)

    @property
    def vectors(self) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        """Vectors as rows of a read-only array, which is a view of the library's memory and keeps it alive."""
        p = lib.kith_results_vector(self._r, 0)
        if p == NULL:
            return None
        kept = ffi.gc(p, partial(_nothing, self))
        view = np.frombuffer(ffi.buffer(kept, self._count * self._dim * 4), F32).reshape(self._count, self._dim)
        view.flags.writeable = False
        return view


class Record(NamedTuple):
    """Everything of one id, of one epoch."""

    id: str
    vector: Optional[np.ndarray[Any, np.dtype[np.float32]]]
    payload: Optional[dict[str, Any]]
    epoch: int
