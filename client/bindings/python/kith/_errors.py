"""Exceptions: one for each code of kith.h, all of them below Error, and below what Python calls such a thing where it has a name for it."""
from __future__ import annotations

import builtins
from typing import Any, NoReturn

from ._library import lib, text


class Error(Exception):
    """Something that libkith refused or could not do.

    code is the negative number that it returned, name what kith.h calls it ("KITH_E_STALE", "ENOSPC"), and str() a sentence
    that says what is wrong and what to do.
    """

    code: int
    name: str

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = text(lib.kith_errname(code))

    def __str__(self) -> str:
        return str(self.args[0]) # KeyError would quote it

    def __reduce__(self) -> Any: # through pickles, as worker pools send them
        return type(self), (self.code, self.args[0])


class SystemError(Error, OSError):
    """What the system said: errno has it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.errno = -code


class InvalidError(Error, ValueError):
    """An argument that can never be right."""


class CorruptError(Error): """KITH_E_CORRUPT: the segment failed a bounds check."""
class ReplacedError(Error): """KITH_E_REPLACED: the collection was dropped, or another one took its name: open it again."""
class StaleError(Error): """KITH_E_STALE: what a snapshot saw is not all there any more: take another one."""
class VersionError(Error): """KITH_E_VERSION: kithd writes another format than this libkith reads."""
class NotFoundError(Error, KeyError): """KITH_E_NOT_FOUND: no such id."""
class NoCollectionError(Error, KeyError): """KITH_E_NO_COLLECTION: no such collection."""
class ExistsError(Error): """KITH_E_EXISTS: a collection of this name exists."""
class NameError(InvalidError): """KITH_E_NAME: not a name of a collection."""
class IdError(InvalidError): """KITH_E_ID: not an id."""
class DimensionError(InvalidError): """KITH_E_DIMENSION: wrong number of dimensions."""
class NotFiniteError(InvalidError): """KITH_E_NOT_FINITE: a vector holds NaN or infinity."""
class ZeroVectorError(InvalidError): """KITH_E_ZERO_VECTOR: a zero vector under cosine."""
class FullError(Error): """KITH_E_FULL: the collection is at its max_vectors."""
class NoSpaceError(Error): """KITH_E_NO_SPACE: no room in the run directory's file system."""
class DeniedError(Error, PermissionError): """KITH_E_DENIED: the daemon does not allow this to your user or groups."""
class TooLargeError(InvalidError): """KITH_E_TOO_LARGE: more than a commit takes."""
class ProtocolError(Error): """KITH_E_PROTOCOL: bytes that are not a request, or no answer."""
class NoDaemonError(Error, ConnectionError): """KITH_E_NO_DAEMON: nothing was sent; try again when kithd is back."""
class LogFailedError(Error): """KITH_E_LOG_FAILED: nobody knows what the disk holds; an upsert or delete may be repeated."""
class TimeoutError(Error, builtins.TimeoutError): """KITH_E_TIMEOUT: the time given has passed."""
class KError(InvalidError): """KITH_E_K: k out of range."""
class EfError(InvalidError): """KITH_E_EF: ef out of range."""
class MovedError(Error): """KITH_E_MOVED: the segment has moved to its next generation."""
class NotSegmentError(Error): """KITH_E_NOT_SEGMENT: not a kith segment."""
class LogDamagedError(Error): """KITH_E_LOG_DAMAGED: the write-ahead log is damaged before its end."""
class BusyError(Error): """KITH_E_BUSY: another daemon owns this directory."""
class UnknownOutcomeError(Error, ConnectionError):
    """KITH_E_UNKNOWN_OUTCOME: the daemon went away before it answered. Upserts and deletes of single ids may simply be repeated."""
class TruncatedError(Error): """KITH_E_TRUNCATED: the file ends too early."""
class FormatError(Error): """KITH_E_FORMAT: the file is not in the format that it should be in."""
class UnsupportedError(Error): """KITH_E_UNSUPPORTED: not in this version."""
class ParameterError(InvalidError): """KITH_E_PARAMETER: a parameter is out of range."""
class RunDirError(Error): """KITH_E_RUN_DIR: the run directory cannot be used."""
class ShutdownError(Error, ConnectionError): """KITH_E_SHUTDOWN: the daemon is stopping."""
class StartingError(Error, ConnectionError): """KITH_E_STARTING: the daemon is still bringing the collection back; try again."""
class RecallError(InvalidError): """KITH_E_RECALL: a target for recall that is not between 0 and 1."""
class CursorError(InvalidError): """KITH_E_CURSOR: not a cursor of this collection."""
class EpochError(Error): """KITH_E_EPOCH: the epoch of the snapshot is not visible yet; wait for it."""
class PayloadError(InvalidError): """KITH_E_PAYLOAD: not a payload."""
class FilterError(InvalidError): """KITH_E_FILTER: not a filter, or one that does not fit the payloads; the text shows the place."""


# "KITH_E_NOT_FOUND" is NotFoundError, and so for all of them.
_CLASSES: dict[int, type[Error]] = {
    getattr(lib, symbol): globals()["".join(word.capitalize() for word in symbol[7:].split("_")) + "Error"]
    for symbol in dir(lib) if symbol.startswith("KITH_E_")
}


def error_of(code: int, said: Any = None, about: str = "") -> Error:
    """The exception for a code. said is a struct kith_error, whose text is used where there is one; about says what it was about."""
    message = text(said.text) if said is not None and said.code == code else ""
    if not message:
        message = text(lib.kith_strerror(code))
        if about:
            message = f"{about}: {message}"
    return _CLASSES.get(code, SystemError if -4096 < code < 0 else Error)(code, message)


def fail(code: int, said: Any = None, about: str = "") -> NoReturn:
    raise error_of(code, said, about)
