"""Texts on their way to the library."""
from __future__ import annotations

from typing import Any

from ._errors import fail


def c_text(value: Any, code: int, what: str) -> bytes:
    """A text as the library takes it. It would end at a NUL: that is an error of its own here."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is text, not {type(value).__name__}")
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        fail(code, None, repr(value))
    if b"\0" in encoded:
        fail(code, None, repr(value))
    return encoded
