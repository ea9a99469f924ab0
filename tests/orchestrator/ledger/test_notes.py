"""What people write into a run's description stays."""

from __future__ import annotations

import pytest

from orchestrator.ledger.notes import NOTE, OWN_TAG, note_tags
from orchestrator.ledger.tags import TAG_LIMIT

OLD, NEW = "| category | accuracy |\n| cat | 0.5 |", "| category | accuracy |\n| cat | 0.9 |"


@pytest.mark.parametrize(
    ("edited", "then"),
    [
        (OLD, NEW),
        (f"Lab book, page 12.\n\n{OLD}", f"Lab book, page 12.\n\n{NEW}"),
        (f"{OLD}\n\nRepeat with more images.", f"{NEW}\n\nRepeat with more images."),
        (f"Before.\r\n\r\n{OLD}\r\nAfter.", f"Before.\n\n{NEW}\nAfter."),
        ("Lab book, page 12.", f"Lab book, page 12.\n\n{NEW}"),
        (OLD.replace("0.5", "0.51 (by hand)"), f"{OLD.replace('0.5', '0.51 (by hand)')}\n\n{NEW}"),
        ("", NEW),
    ],
)
def test_only_the_former_results_are_replaced(edited: str, then: str) -> None:
    written = note_tags({}, OLD)
    after = note_tags({**written, NOTE: edited}, NEW)
    assert after[NOTE] == then
    assert note_tags({**written, **after}, NEW) == after


def test_a_description_that_was_there_before_the_first_results_is_kept() -> None:
    assert note_tags({NOTE: "Mine."}, NEW)[NOTE] == f"Mine.\n\n{NEW}"


def test_a_persons_text_is_never_cut() -> None:
    text = "x" * (TAG_LIMIT - 100)
    long = "y" * 500
    assert note_tags({NOTE: text}, long)[NOTE] == f"{text}\n\n{long[:98]}"
    assert note_tags({NOTE: "x" * TAG_LIMIT}, long) == {}


def test_a_mark_that_was_edited_costs_nothing() -> None:
    assert note_tags({NOTE: "Mine.", OWN_TAG: "many"}, NEW)[NOTE] == f"Mine.\n\n{NEW}"
