"""libkith, loaded and checked to be the one that this package was made for."""
from __future__ import annotations

import ctypes
import os
from typing import Any

from ._abi import ffi as _ffi

SONAME = "libkith.so.0"

ffi: Any = _ffi
NULL: Any = ffi.NULL


def _load() -> Any:
    name = os.environ.get("KITH_LIBRARY") or SONAME
    try:
        library = ffi.dlopen(name)
    except OSError as e:
        raise ImportError(f"kith: cannot load {name} ({e}); install Kith and run ldconfig, or let KITH_LIBRARY name its libkith.so") from None
    # Until 1.0 the interface may change with every minor version (CHANGELOG.md). A library that is newer within one has
    # everything; an older one may lack a symbol, which is better told now than at the first call of it.
    try:
        there = ffi.string(library.kith_version()).decode()
        for symbol in dir(library):
            getattr(library, symbol)
    except (AttributeError, ffi.error) as e:
        raise ImportError(f"kith: {name} is older than this package, or no libkith ({e}); install both of one version") from None
    wanted = f"{library.KITH_VERSION_MAJOR}.{library.KITH_VERSION_MINOR}"
    if there.split(".")[:2] != wanted.split("."):
        raise ImportError(f"kith: {name} is version {there}, and this package is for {wanted}; install both of one version")
    return library


lib: Any = _load()


def version() -> str:
    """The version of libkith, as "0.1.0"."""
    return text(lib.kith_version())


def text(pointer: Any) -> str:
    """A NUL-terminated string of the library."""
    return str(ffi.string(pointer), "utf-8", "replace")


_free = ctypes.CDLL(None).free
_free.argtypes = [ctypes.c_void_p]
_free.restype = None


def taken(out: Any, size: int | None = None) -> bytes:
    """A block that the library has malloc'ed, copied and freed: a text, or so many bytes."""
    block = bytes(ffi.string(out[0])) if size is None else bytes(ffi.buffer(out[0], size))
    _free(int(ffi.cast("uintptr_t", out[0])))
    return block


def name_bytes(name: str | os.PathLike[str] | None) -> Any:
    """A name or a path for the library; NULL for None."""
    return NULL if name is None else os.fsencode(name)


def opts(kind: str, **members: Any) -> Any:
    """A struct that begins with its size."""
    o = ffi.new(f"struct kith_{kind} *")
    o.struct_size = ffi.sizeof(o[0])
    for member, value in members.items():
        setattr(o, member, value)
    return o
