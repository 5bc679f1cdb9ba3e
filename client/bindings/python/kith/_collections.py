"""Collections as a whole, by their names."""
from __future__ import annotations

import json
import os
from typing import Any

from ._errors import fail
from ._index import Index
from ._library import NULL, ffi, lib, name_bytes, opts, taken
from ._types import KEEPS, METRICS, QUANTIZATIONS, number_of

def _name(name: str) -> bytes:
    encoded = os.fsencode(name)
    if b"\0" in encoded:
        fail(lib.KITH_E_NAME, None, repr(name))
    return encoded


def _directory(run_dir: Any) -> Any:
    """As char[], which a struct may point at."""
    encoded = name_bytes(run_dir)
    return NULL if encoded == NULL else ffi.new("char[]", encoded)


def open(name: str | os.PathLike[str], *, run_dir: str | os.PathLike[str] | None = None, attach_wait: float = 0.0, prefault: bool = False,
         counters: bool = True) -> Index:
    """Open a collection, read-only; needs no daemon.

    name         of the run directory, or, with a slash in it, the path of a segment
    run_dir      None: $KITH_RUN, then /dev/shm/kith, then /run/kith
    attach_wait  seconds to wait for it to appear
    prefault     touch every page now, so that no search pays for it
    counters     count searches where kithd and kith top see it
    """
    return Index(name, run_dir=run_dir, attach_wait=attach_wait, prefault=prefault, counters=counters)


def create(name: str, dim: int, metric: str = "l2", *, m: int = 0, ef_construction: int = 0, quantization: str = "none", keep: str = "f32",
           max_vectors: int = 0, fixed: bool = False, run_dir: str | os.PathLike[str] | None = None) -> None:
    """Ask kithd for a new collection. 0: its default."""
    error, directory = ffi.new("struct kith_error *"), _directory(run_dir)
    o = opts("create_opts", dim=dim, metric=number_of("metric", METRICS, metric), m=m, ef_construction=ef_construction,
             quantization=number_of("quantization", QUANTIZATIONS, quantization), keep=number_of("keep", KEEPS, keep),
             max_vectors=max_vectors, fixed=fixed, run_dir=directory, error=error)
    rc = lib.kith_create(_name(name), o)
    if rc < 0:
        fail(rc, error)


def drop(name: str, *, run_dir: str | os.PathLike[str] | None = None) -> None:
    """Remove a collection and its log for good."""
    error = ffi.new("struct kith_error *")
    rc = lib.kith_drop(_name(name), name_bytes(run_dir), error)
    if rc < 0:
        fail(rc, error)


def collections(*, run_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Names of all collections, sorted."""
    error, out = ffi.new("struct kith_error *"), ffi.new("char **")
    rc = lib.kith_list(name_bytes(run_dir), out, error)
    if rc < 0:
        fail(rc, error)
    at, names = 0, []
    for _ in range(rc):
        names.append(ffi.string(out[0] + at).decode())
        at += len(names[-1]) + 1
    taken(out, 0)
    return names


def readiness(name: str | None = None, *, run_dir: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """How far kithd is with bringing collections back after a start; kithd(8) lists the members. "waiting" is added: how many are not served yet."""
    error, out = ffi.new("struct kith_error *"), ffi.new("char **")
    rc = lib.kith_readiness(NULL if name is None else _name(name), name_bytes(run_dir), out, error)
    if rc < 0:
        fail(rc, error)
    value: dict[str, Any] = json.loads(taken(out))
    value["waiting"] = rc
    return value


def restore(name: str, path: str | os.PathLike[str], *, run_dir: str | os.PathLike[str] | None = None) -> int:
    """Make a new collection of a back-up; how many vectors it has."""
    error, info, directory = ffi.new("struct kith_error *"), opts("backup_info"), _directory(run_dir)
    o = opts("backup_opts", run_dir=directory, error=error)
    rc = lib.kith_restore(_name(name), os.fsencode(path), o, info)
    if rc < 0:
        fail(rc, error)
    return int(info.live_count)
