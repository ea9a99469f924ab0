"""Tables on terminals of any width."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console, RenderableType

from orchestrator.cli.layout import PlainTable
from orchestrator.cli.text.sweeps.outcome import outcome_text
from orchestrator.execution.sweep_outcome import SweepOutcome
from orchestrator.report.summary import ResultCell, ResultTable, Row

WIDTHS = (40, 60, 80, 120)


def drawn(content: RenderableType, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(content)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return "\n".join(lines)


def results(settings: str = "") -> ResultTable:
    cells = {"ordinary": ResultCell(0.912, 0.1063, 1), "interpretable": ResultCell(0.904, 0.0571, 1)}
    rows = tuple(Row(name, "alexnet", settings, cells) for name in ("voc-cat", "ilsvrc-hippopotamus"))
    return ResultTable(rows, (Row("mean of 2", "alexnet", settings, cells),), "generated animals", (), 0)


@pytest.mark.parametrize("width", [20, *WIDTHS])
@pytest.mark.parametrize("settings", ["", "filter_loss.weight=0.1, train.epochs=5"])
def test_the_numbers_of_a_sweeps_results_stay_whole(width: int, settings: str) -> None:
    outcome = SweepOutcome(
        name="s", counts={"done": 4}, interrupted=False, ran=4, seconds=10.0,
        table=results(settings),
    )  # fmt: skip
    text = drawn(outcome_text(outcome), width)
    for number in ("0.912", "0.904", "0.1063", "0.0571", "-46%"):
        assert len(re.findall(rf"(?<!\S){re.escape(number)}(?!\S)", text)) == 3


@pytest.mark.parametrize("width", WIDTHS)
def test_text_folds_and_keys_stay_whole(width: int) -> None:
    table = PlainTable("key", "job", "accuracy", "why", numbers=("accuracy",), optional=("why",))
    table.add_row("ac2c80d87d48", "voc-cat alexnet interpretable", "0.500", "a long reason " * 4)
    text = drawn(table, width)
    assert "ac2c80d87d48" in text
    assert "0.500" in text
    assert ("reason" in text) is (width > 40)


def test_a_table_that_cannot_fit_becomes_lists_with_its_headings() -> None:
    table = PlainTable("key", "first number", "second number", numbers=("first number", "second number"))
    table.add_row("ac2c80d87d48", "1234567890", "0987654321")
    table.add_row("bc2c80d87d48", "", "1")
    assert drawn(table, 25).splitlines() == [
        "key: ac2c80d87d48", "first number: 1234567890", "second number: 0987654321", "",
        "key: bc2c80d87d48", "second number: 1",
    ]  # fmt: skip


def test_brackets_in_names_are_no_markup() -> None:
    table = PlainTable("name", "file")
    table.add_row("[red]a", "/x[1]/y")
    assert "[red]a /x[1]/y" in drawn(table, 60)
