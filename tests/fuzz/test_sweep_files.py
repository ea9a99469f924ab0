"""A sweep file and `--set` are accepted or refused as usage (exit code 2), whatever is in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from orchestrator.planning.typed import FIELDS, SECTIONS
from schemas.errors import SpecError
from schemas.grids import GRIDS
from schemas.sweep import AXIS_ALIASES, SweepSpec
from tests.support.fuzzing import Ended, bounded, run

MOST_SECONDS = 2.0

SCALARS = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 7, 10**30, 0.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan"), "", " ",
        "cat", "voc_part/cat", "alexnet", "interpretable", "random", "generated", "photographs", "0x10", "1e400", "010",
        "~", "null", "yes", "\u00e9", "\U0001f408", "a\nb", "x" * 500, "*", "../..", [], {}, [[]], {"a": 1}, [None],
    ]
) | st.text(max_size=8)  # fmt: skip
WORDS = st.sampled_from([*FIELDS, *sorted(SECTIONS), *AXIS_ALIASES, *SweepSpec.model_fields, *GRIDS]) | st.text(
    max_size=5
)
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
FILES = st.dictionaries(st.sampled_from(sorted(SweepSpec.model_fields)) | WORDS, TREES, max_size=5)
TOKENS = st.sampled_from(
    [
        "a: ", "base: ", "axes:", "- ", "  ", "\n", "\t", "{", "}", "[", "]", ", ", "&x ", "*x", "<<: ", "!!int ",
        "!!python/name:os ", "%YAML 1.1\n", "---\n", "...\n", ">-\n", "'", '"', "#", "? ", ": ", "\ufeff", "\0", "\x85",
        "train.epochs: ", "3", "|\n",
    ]
)  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Return a function that plans a sweep file and fails unless it is accepted or refused as usage, quickly."""
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ORCH_DATA_ROOT", raising=False)
    run("plan", "--grid", "smoke")  # imports what every plan needs

    def attempt(content: bytes, *words: str) -> Ended:
        file = tmp_path / "sweep.yaml"
        file.write_bytes(content)
        ended = run("plan", str(file), *words)
        assert ended.code in (0, SpecError.exit_code) or "data root" in ended.err, ended
        assert "Traceback" not in ended.err
        assert ended.seconds < MOST_SECONDS
        return ended

    return attempt


def dumped(tree: object) -> bytes:
    out = io.BytesIO()
    YAML(typ="safe").dump(tree, out)
    return out.getvalue()


@pytest.mark.slow
@given(text=st.lists(TOKENS | st.text(max_size=4), max_size=12).map("".join))
@bounded(120)
def test_any_text_is_a_sweep_file_or_refused(plan: Callable[..., Ended], text: str) -> None:
    plan(text.encode("utf-8", "surrogatepass"))


@pytest.mark.slow
@given(content=st.binary(max_size=60))
@bounded(30)
def test_any_bytes_are_a_sweep_file_or_refused(plan: Callable[..., Ended], content: bytes) -> None:
    plan(content)


@pytest.mark.slow
@given(tree=FILES)
@bounded(120)
def test_any_tree_over_real_names_is_planned_or_refused(plan: Callable[..., Ended], tree: dict[str, Any]) -> None:
    plan(dumped(tree))


@pytest.mark.slow
@given(field=st.sampled_from(FIELDS) | WORDS, value=SCALARS)
@bounded(120)
def test_any_set_is_planned_or_refused(plan: Callable[..., Ended], field: str, value: object) -> None:
    text = value if isinstance(value, str) else dumped(value).decode().split("\n")[0]
    plan(b"grid: smoke\nname: fuzz\n", f"--set={field}={text}")


@pytest.mark.slow
@given(field=st.sampled_from(FIELDS), value=SCALARS, other=SCALARS)
@bounded(120)
def test_any_value_of_any_field_is_planned_or_refused(
    plan: Callable[..., Ended], field: str, value: object, other: object
) -> None:
    plan(dumped({"grid": "smoke", "name": "fuzz", "base": {field: value}}))
    plan(dumped({"grid": "smoke", "name": "fuzz", "axes": {field: [value, other]}}))
