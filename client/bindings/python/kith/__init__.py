"""Nearest-neighbour search in shared memory: many processes, one copy, live writes.

    import kith

    with kith.open("docs") as index:
        for hit in index.search(query, k=10):
            print(hit.id, hit.distance)

A collection is kept by kithd in one file in shared memory; this package maps it, by libkith, and searches it in place. See kith(3), and README.md beside
this package for numpy, threads, forks and errors.
"""
from ._collections import collections, create, drop, open, readiness, restore
from ._errors import (Error, SystemError, InvalidError, CorruptError, ReplacedError, StaleError,
                      VersionError, NotFoundError, NoCollectionError, ExistsError, NameError, IdError,
                      DimensionError, NotFiniteError, ZeroVectorError, FullError, NoSpaceError, DeniedError,
                      TooLargeError, ProtocolError, NoDaemonError, LogFailedError, TimeoutError, KError,
                      EfError, MovedError, NotSegmentError, LogDamagedError, BusyError, UnknownOutcomeError,
                      TruncatedError, FormatError, UnsupportedError, ParameterError, RunDirError, ShutdownError,
                      StartingError, RecallError, CursorError, EpochError, PayloadError, FilterError)
from ._hits import BatchHits, Hit, Hits, Page, Record
from ._index import Index
from ._library import version
from ._types import Commit, Explanation, Facet, Loaded, Relayout, SearchInfo, SearchOptions, Snapshot, Stats
from ._writer import KEEP, Batch, Writer

__all__ = [
    "KEEP", "Batch", "BatchHits", "Commit", "Explanation", "Facet", "Hit", "Hits", "Index", "Loaded", "Page", "Record", "Relayout", "SearchInfo",
    "SearchOptions", "Snapshot", "Stats", "Writer", "collections", "create", "drop", "open", "readiness", "restore", "version",
    "Error", "SystemError", "InvalidError", "CorruptError", "ReplacedError", "StaleError",
    "VersionError", "NotFoundError", "NoCollectionError", "ExistsError", "NameError", "IdError",
    "DimensionError", "NotFiniteError", "ZeroVectorError", "FullError", "NoSpaceError", "DeniedError",
    "TooLargeError", "ProtocolError", "NoDaemonError", "LogFailedError", "TimeoutError", "KError",
    "EfError", "MovedError", "NotSegmentError", "LogDamagedError", "BusyError", "UnknownOutcomeError",
    "TruncatedError", "FormatError", "UnsupportedError", "ParameterError", "RunDirError", "ShutdownError",
    "StartingError", "RecallError", "CursorError", "EpochError", "PayloadError", "FilterError",
]
