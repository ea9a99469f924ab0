"""YAML text: which scalars are numbers, and documents that are refused before they are built."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from orchestrator.yaml_text import parse, scalar
from schemas.errors import SpecError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("+5", 5), ("-5", -5), ("010", 10), ("001", 1), ("008", 8), ("0o10", 8), ("0x10", 16),
        (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), (".5e3", 500.0), ("1E-3", 0.001), ("-0.0", 0.0), ("1e999", math.inf),
        ("true", True), ("FALSE", False), ("~", None), ("null", None), ("", None), ("# only a comment", None),
        ("yes", "yes"), ("on", "on"), ("n", "n"), ("1:30", "1:30"), ("1_000", "1_000"), ("0b1", "0b1"),
        ("-0x1", "-0x1"),
        ("2026-03-01", "2026-03-01"), ("\uff11\uff12", "\uff11\uff12"), ("'5'", "5"), ("!!str 5", "5"), ("=", "="),
        ("5 % 2", "5 % 2"),
        ("%YAML 1.1\n---\n[yes, 010, 1:30]", ["yes", 10, "1:30"]),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    found = parse(text, "here")
    assert (found, type(found)) == (value, type(value))


def test_negative_zero_is_zero_wherever_it_stands() -> None:
    for found in (parse("[-0.0]", "here")[0], parse("a: {b: -.0}", "here")["a"]["b"]):
        assert math.copysign(1.0, found) == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &b\n  c: *b", r"here, line 2, column 6: alias `\*b` contains itself"),
        ("&x [1, *x]", r"alias `\*x` contains itself"),
        ("[" * 5000, "line 1, column 33: more than 32 collections within each other"),
        ("{a: " * 5000, "more than 32 collections"),
        ("- " * 5000, "more than 32 collections"),
        (BOMB, "line 6, column 8: more than 100000 values, aliases expanded"),
        ("a: 1\n---\nb: 2", "line 2, column 1: a second document begins"),
        ("a: 1\n---\n", "a second document begins"),
        ("a:\n\tb: 1", r"line 2, column 1: .*'\\t'"),
        ("a: 1\nb: \x00", r"line 2: character U\+0000 cannot be in YAML"),
        ("a: \ud800", r"character U\+D800 cannot be in YAML"),
        ("9" * 5000, "a number has too many digits"),
        ("!!bool yes", "a value does not fit its tag"),
        ("!!int ''", "a value does not fit its tag"),
        ("!!int 1:30", "invalid literal"),
        ("!!float 1:30", "could not convert"),
        ("!!set {a}", "could not determine a constructor"),
        ("!!timestamp 2026-03-01", "could not determine a constructor"),
        ("!!binary aGk=", "could not determine a constructor"),
        ("<<: 3", "expected a mapping"),
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line_and_at_once(text: str, message: str) -> None:
    started = time.perf_counter()
    with pytest.raises(SpecError, match=message) as refused:
        parse(text, "here")
    assert "\n" not in str(refused.value)
    assert time.perf_counter() - started < 5


def test_an_alias_may_stand_for_a_value_many_times() -> None:
    assert parse("a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}", "here") == {
        "a": {"x": 1},
        "b": [{"x": 1}, {"x": 1}],
        "c": {"x": 1, "y": 2},
    }


def test_a_scalar_that_is_not_yaml_stays_text() -> None:
    assert [scalar(text) for text in ("5", "[", "5min", 7)] == [5, "[", "5min", 7]
