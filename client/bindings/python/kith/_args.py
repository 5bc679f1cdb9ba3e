"""Arguments on their way to the library: vectors without a copy where they are what it takes, texts without a NUL in them."""
from __future__ import annotations

import operator
from typing import Any, Tuple, Union

import numpy as np

from ._errors import fail
from ._hits import F32, FLOATS
from ._library import ffi, lib
from ._text import c_text

Id = Union[str, int, "np.integer[Any]"]


def id_bytes(id: Id) -> bytes:
    """An id; integers are ids by their digits, as kith load has it."""
    if type(id) is not str:
        if isinstance(id, str):
            id = str(id)
        else:
            return b"%d" % operator.index(id)
    return c_text(id, lib.KITH_E_ID, "an id")


def rows_of(a: Any, dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """An array of rows as contiguous float32; the array itself when it is that already."""
    rows = np.ascontiguousarray(a, F32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        fail(lib.KITH_E_DIMENSION, None, f"an array of the shape {np.shape(a)}, for a collection of {dim} dimensions")
    return rows if rows.flags.aligned else rows.copy()


def floats_of(vector: Any) -> Tuple[Any, int]:
    """One vector: a float * into it and its length. Contiguous float32 arrays are not copied; the pointer keeps them alive."""
    v = np.ascontiguousarray(vector, F32)
    if np.ndim(vector) != 1:
        fail(lib.KITH_E_DIMENSION, None, f"an array of the shape {np.shape(vector)} where one vector belongs")
    if not v.flags.aligned:
        v = v.copy()
    return ffi.from_buffer(FLOATS, v), len(v)
