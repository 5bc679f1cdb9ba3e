"""Prometheus' text format 0.0.4, read as strictly as its grammar is, and the names of metrics in an expression of PromQL."""
import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
TYPES = ("counter", "gauge", "histogram")
# What PromQL itself has: operators and words before which no metric stands.
FUNCTIONS = set("sum avg min max count topk bottomk quantile group stddev rate irate increase delta deriv histogram_quantile clamp clamp_min clamp_max "
                "abs round floor ceil label_replace label_join label_values vector scalar time absent changes resets sort sort_desc "
                "max_over_time min_over_time avg_over_time sum_over_time last_over_time predict_linear by without on ignoring group_left group_right "
                "and or unless bool offset inf nan".split())


class Family:
    def __init__(self, name, kind, text):
        self.name, self.kind, self.text, self.samples = name, kind, text, []

    def labels(self):
        """Of all its samples, those that the kind adds left out."""
        return {frozenset(k for k in labels if k != "le") for _, labels, _ in self.samples}


def value_of(text):
    assert re.fullmatch(r"[+-]?Inf|NaN|[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", text), f"no value: {text}"
    return float(text)


def parse(text):
    """name -> Family. Every breach of the grammar is an AssertionError."""
    assert text.endswith("\n") and "\r" not in text and "\n\n" not in text
    families, current, seen = {}, None, set()
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            m = re.fullmatch(rf"# HELP ({NAME}) (.+)", line)
            assert m and m[1] not in families, line
            current = families[m[1]] = Family(m[1], None, m[2])
        elif line.startswith("# TYPE "):
            m = re.fullmatch(rf"# TYPE ({NAME}) (\w+)", line)
            assert m and m[1] == current.name and m[2] in TYPES and not current.kind and not current.samples, line
            current.kind = m[2]
        else:
            m = re.fullmatch(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)", line)
            assert m, f"no sample: {line}"
            pairs = re.findall(LABEL, m[2] or "")
            assert len({k for k, _ in pairs}) == len(pairs), line
            own = [current.name] if current.kind != "histogram" else [current.name + end for end in ("_bucket", "_sum", "_count")]
            assert m[1] in own, f"a line of {m[1]} among those of {current.name}"
            assert (m[1], frozenset(pairs)) not in seen, f"twice: {line}"
            seen.add((m[1], frozenset(pairs)))
            current.samples.append((m[1], dict(pairs), value_of(m[len(m.groups())])))
    for family in families.values():
        check(family)
    return families


def check(family):
    """What its kind and the conventions ask for."""
    name = family.name
    assert family.kind and family.text.endswith("."), name
    assert name.endswith("_total") == (family.kind == "counter"), f"{name} is a {family.kind}"
    assert not re.search(r"_(ms|us|ns|milliseconds|kib|mib|percent)(_|$)", name), f"{name} is not in a base unit"
    assert len(family.labels()) <= 1, f"{name} has several sets of labels"
    for _, labels, value in family.samples:
        assert not math.isnan(value) and (value >= 0 or family.kind == "gauge"), (name, labels, value)
    if family.kind == "histogram":
        check_histogram(family)


def check_histogram(family):
    groups = {}
    for sample, labels, value in family.samples:
        rest = frozenset((k, v) for k, v in labels.items() if k != "le")
        groups.setdefault(rest, {}).setdefault(sample[len(family.name):], []).append((labels.get("le"), value))
    for rest, parts in groups.items():
        assert set(parts) == {"_bucket", "_sum", "_count"} and len(parts["_sum"]) == len(parts["_count"]) == 1, (family.name, rest)
        bounds = [(value_of(le), n) for le, n in parts["_bucket"]]
        assert bounds == sorted(bounds) and [b[1] for b in bounds] == sorted(b[1] for b in bounds), (family.name, rest, bounds)
        assert bounds[-1] == (math.inf, parts["_count"][0][1]), (family.name, rest)
        assert parts["_count"][0][1] > 0 or parts["_sum"][0][1] == 0, (family.name, rest)


def names_in(expression):
    """The metrics that an expression of PromQL asks for."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    return {word for word in re.findall(rf"(?<![\w.$]){NAME}", text) if word not in FUNCTIONS and not re.fullmatch(r"[eE]\d*", word)}


def labels_in(expression):
    """(metric, label) of what its selectors match by; and ("", label) of what it groups by."""
    found = set()
    for name, inside in re.findall(rf"({NAME})\{{([^}}]*)\}}", expression):
        found |= {(name, label) for label in re.findall(r'([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*"', inside)}
    for inside in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expression):
        found |= {("", label.strip()) for label in inside.split(",") if label.strip()}
    return found
