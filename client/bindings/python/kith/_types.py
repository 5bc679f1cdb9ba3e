"""Values that go in and come out: snapshots, options of a search, figures. All of them are immutable, and for any thread."""
from __future__ import annotations

import json
from dataclasses import dataclass, fields as fields_of
from typing import Any, Mapping, NamedTuple, Sequence, Union

from ._library import NULL, ffi, lib, opts
from ._text import c_text

Payload = Union[Mapping[str, Any], str, None]
"""A payload on its way in: a mapping, JSON text as it is, or None for none."""

METRICS = {"l2": 1, "cosine": 2, "ip": 3}
QUANTIZATIONS = {"none": 0, "f16": 1, "sq8": 2, "bits": 3, "auto": 4}
KEEPS = {"f32": 0, "f16": 1, "none": 2}
DURABILITIES = {"durable": 0, "applied": 1, "none": 2}
EF_BASES = ("given", "curve", "beyond", "blind", "limit")
PLANS = ("none", "walk", "scan", "walk_scan", "hops")
PLAN_REASONS = ("given", "many", "few", "short", "some", "known")


def number_of(what: str, table: dict[str, int], word: str) -> int:
    try:
        return table[word]
    except KeyError:
        raise ValueError(f"{what} is {word!r}; there are: {', '.join(table)}") from None


def word_of(table: dict[str, int], number: int) -> str:
    return next((word for word, n in table.items() if n == number), str(number))


def word_at(words: Sequence[str], number: int) -> str:
    return words[number] if number < len(words) else str(number)


def payload_bytes(payload: Payload) -> Any:
    """A payload as the library takes it: JSON text, or NULL for none."""
    if payload is None:
        return NULL
    if not isinstance(payload, str):
        payload = json.dumps(payload, ensure_ascii=False, allow_nan=False)
    return payload.encode()


class Snapshot(NamedTuple):
    """A moment of a collection. It pins nothing: what it saw may go, and then reading at it is a StaleError."""

    epoch: int
    timeline: int


class Commit(NamedTuple):
    """What came of a batch."""

    epoch: int  # first at which it is visible
    found: int  # deletes, and changes of payloads, that found their id
    durable_epoch: int
    lag_ms: int


@dataclass(frozen=True)
class Loaded:
    """What came of a load."""

    count: int  # vectors that were acknowledged
    epoch: int  # at which all of them are visible


@dataclass(frozen=True)
class SearchInfo:
    """What a search did; see struct kith_search_info."""

    epoch: int
    distance_count: int
    expansion_count: int
    restart_count: int
    deadline_hit: bool
    generation_changed: bool
    indexed: bool
    estimate_count: int
    ef: int
    ef_basis: str
    plan: str
    plan_reason: str
    evaluated_count: int
    matched_count: int
    share: float


@dataclass(frozen=True)
class Stats:
    """Figures of a collection; see struct kith_stats."""

    epoch: int
    live_count: int
    dead_count: int
    resting_count: int
    free_count: int
    slot_count: int
    slot_max: int
    bytes_taken: int
    bytes_reserved: int
    generation: int
    dim: int
    metric: str
    m: int
    ef_construction: int
    level_max: int
    daemon_alive: bool
    quantization: str
    keep: str
    quantization_wanted: str
    keep_wanted: str
    code_bits: int
    undecided: int
    huge_bytes: int
    huge_wanted_bytes: int
    durable_epoch: int
    timeline: int
    payload_count: int
    payload_bytes: int


@dataclass(frozen=True)
class Facet:
    """How often values occur in a field; see kith_facet_of."""

    epoch: int
    vectors: int
    having: int
    distinct: int
    other: int
    values: tuple[tuple[str | int | float | bool, int], ...]


@dataclass(frozen=True)
class Explanation:
    """What a search under a filter would do; see struct kith_explanation."""

    epoch: int
    vectors: int
    matches: int
    low: int
    high: int
    exact: bool
    plan: str
    plan_reason: str
    walk_ef: int
    hops_ef: int
    indexed: bool
    looks: int
    walk_cost: float
    hops_cost: float
    scan_cost: float


@dataclass(frozen=True)
class Relayout:
    """What came of optimize() and alter(); see struct kith_alter_info."""

    epoch: int
    generation: int
    live_count: int
    bytes_before: int
    bytes_after: int
    took_ms: int
    held_us: int
    done: str


DONE = ("nothing", "settings", "copied")
_WORDS: dict[str, Any] = {
    "metric": lambda n: word_of(METRICS, n),
    "quantization": lambda n: word_of(QUANTIZATIONS, n),
    "quantization_wanted": lambda n: word_of(QUANTIZATIONS, n),
    "keep": lambda n: word_of(KEEPS, n),
    "keep_wanted": lambda n: word_of(KEEPS, n),
    "ef_basis": lambda n: word_at(EF_BASES, n),
    "plan": lambda n: word_at(PLANS, n),
    "plan_reason": lambda n: word_at(PLAN_REASONS, n),
    "done": lambda n: word_at(DONE, n),
}


def filled(kind: Any, struct: Any) -> Any:
    """A dataclass from the struct whose members have the same names."""
    values = {}
    for f in fields_of(kind):
        value = getattr(struct, f.name)
        word = _WORDS.get(f.name)
        values[f.name] = word(value) if word else bool(value) if str(f.type) == "bool" else value
    return kind(**values)


def at_of(at: Snapshot | None) -> tuple[int, int]:
    return (0, 0) if at is None else (at[0], at[1])


def paths(names: Sequence[str]) -> tuple[Any, list[Any]]:
    """Dotted paths as const char *const *, and what keeps them alive."""
    if isinstance(names, str):
        raise TypeError("fields is a sequence of dotted paths, not one string")
    texts = [ffi.new("char[]", c_text(name, lib.KITH_E_PAYLOAD, "a field")) for name in names]
    return ffi.new("const char *[]", texts), texts


class SearchOptions:
    """How to search. Made once and given to many searches, it costs them nothing; for any thread.

    ef       breadth of the walk; 0: max(100, k), or as recall says
    exact    compare with every vector
    recall   a share of the true neighbours, as 0.95, that ef is chosen for; with ef, that is the most
    filter   a condition on payloads, as 'lang = "en" and chars >= 40'
    strict   a FilterError when nothing has a field of the filter
    payloads hits with their payloads; fields: of those, these dotted paths alone
    at       a snapshot to search at
    timeout  seconds from the call on after which the best hits so far are returned
    """

    __slots__ = ("pointer", "timeout_ns", "_alive")

    def __init__(self, *, ef: int = 0, exact: bool = False, recall: float = 0.0, filter: str | None = None, strict: bool = False,
                 payloads: bool = False, fields: Sequence[str] | None = None, at: Snapshot | None = None,
                 timeout: float | None = None) -> None:
        o = opts("search_opts", ef=ef, exact=exact, target_recall=recall, strict=strict, payloads=payloads or fields is not None)
        o.at.epoch, o.at.timeline = at_of(at)
        self._alive: list[Any] = []
        if fields is not None:
            o.fields, texts = pointer_and_texts = paths(fields)
            o.field_count = len(texts)
            self._alive.append(pointer_and_texts)
        if filter is not None:
            condition = ffi.new("char[]", c_text(filter, lib.KITH_E_FILTER, "a filter"))
            o.filter = condition
            self._alive.append(condition)
        if timeout is not None and not timeout >= 0:
            raise ValueError("timeout is in seconds, 0 or more, or None")
        self.timeout_ns = None if timeout is None else int(timeout * 1e9)
        self.pointer: Any = o
