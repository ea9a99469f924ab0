"""The matrix of a sweep's jobs fits any terminal, and never loses what failed."""

from __future__ import annotations

import pytest

from orchestrator.execution.job_matrix import Cell, Place, draw_matrix, place_of
from schemas.job import JobSpec
from tests.support.toy import toy_spec


def cells(rows: int, columns: int, **statuses: str) -> list[Cell]:
    """Waiting jobs in rows `r0`, `r1`, ...; `r3c1="failed"` changes one."""
    places = [(f"r{row}", f"c{column}") for row in range(rows) for column in range(columns)]
    return [Cell(Place(*place), statuses.get("".join(place), "waiting")) for place in places]


def drawn(found: list[Cell], width: int, height: int) -> list[str]:
    return [line.plain for line in draw_matrix(found, width, height)]


def test_a_row_per_category_and_a_column_per_network() -> None:
    jobs = [
        Cell(Place("cat", "alexnet ordinary"), "done", accuracy=0.954),
        Cell(Place("cat", "alexnet interpretable"), "running", share=0.5),
        Cell(Place("horse", "alexnet ordinary"), "failed"),
        Cell(Place("horse", "alexnet interpretable"), "done", accuracy=1.0),
        Cell(Place("dog", "alexnet ordinary"), "running"),
        Cell(Place("dog", "alexnet interpretable"), "done"),
    ]
    assert drawn(jobs, 30, 10) == [
        "a alexnet ordinary",
        "b alexnet interpretable",
        "         a    b",
        "cat    .95  50%",
        "horse FAIL 1.00",
        "dog    ...   ok",
    ]


def test_blocks_stand_side_by_side_where_there_is_room() -> None:
    assert drawn(cells(3, 1), 16, 10) == ["a c0", "      a        a", "r0    ·  r2    ·", "r1    ·"]
    assert drawn(cells(3, 1), 15, 10) == ["a c0", "      a", "r0    ·", "r1    ·", "r2    ·"]


def test_where_not_all_rows_fit_those_that_need_a_look_come_first() -> None:
    found = drawn(cells(9, 1, r8c0="failed", r5c0="running", r0c0="done"), 10, 6)
    assert found == ["a c0", "      a", "r8 FAIL", "r5  ...", "r1    ·", "and 6 mor…"]


@pytest.mark.parametrize("rows", [0, 1, 5, 37])
@pytest.mark.parametrize("columns", [1, 8, 40])
def test_it_fits_every_terminal(rows: int, columns: int) -> None:
    found = cells(rows, columns, r4c0="failed")
    for width in (1, 7, 20, 80, 120, 300):
        for height in (0, 1, 3, 12, 24, 60):
            lines = drawn(found, width, height)
            assert len(lines) <= max(0, height)
            assert all(len(line) <= width for line in lines)


def test_pretraining_has_no_place_and_a_title_is_split_at_its_category() -> None:
    spec = toy_spec(seed=3)
    assert place_of(spec.title, spec.model_dump()) == Place("voc-cat", "alexnet interpretable seed 3")
    upstream = JobSpec.model_validate({**toy_spec("ordinary").model_dump(), "is_pretraining": True})
    assert place_of(upstream.title, upstream.model_dump()) is None
