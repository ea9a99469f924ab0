"""Puts orch's results into the description of a run, beside what people wrote there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from orchestrator.ledger.tags import TAG_LIMIT

NOTE = "mlflow.note.content"
"""The tag that MLflow's UI shows as the run's description."""
OWN_TAG = "orch.note"
"""Length and SHA-256 of the part of the description that orch wrote, by which it is found again."""


def note_tags(tags: Mapping[str, str], results: str) -> dict[str, str]:
    """Return the tags that put new results into a run's description in place of the former ones.

    Everything else in the description was written by people, and is kept. So are former results that a person has
    edited: the new ones then follow below.

    Args:
        tags: The tags of the run.
        results: The results as Markdown. They are cut if the description does not fit into a tag otherwise, and left
            out if nothing of them fits.
    """
    description = tags.get(NOTE, "").replace("\r\n", "\n")
    before, after = _around(description, tags.get(OWN_TAG, ""))
    own = results[: max(TAG_LIMIT - len(before) - len(after), 0)]
    if not own:
        return {}
    return {NOTE: before + own + after, OWN_TAG: _mark(own)}


def _around(description: str, mark: str) -> tuple[str, str]:
    """What people wrote before and after the results of which `mark` is the tag."""
    length = int(mark.partition(" ")[0]) if mark.partition(" ")[0].isdigit() else 0
    for start in range(len(description) - length + 1) if length else ():
        if _mark(description[start : start + length]) == mark:
            return description[:start], description[start + length :]
    return (f"{description.rstrip()}\n\n" if description.strip() else ""), ""


def _mark(text: str) -> str:
    return f"{len(text)} {hashlib.sha256(text.encode()).hexdigest()}"
