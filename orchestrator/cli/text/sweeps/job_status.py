"""How the status of jobs is written: counts, and the style of each status."""

from __future__ import annotations

from collections.abc import Mapping

STYLES = {
    "done": "green",
    "failed": "red",
    "lost": "yellow",
    "running": "cyan",
    "interrupted": "yellow",
    "blocked": "red",
}
"""Status of a job -> its style."""


def counts_text(counts: Mapping[str, int]) -> str:
    """Jobs by status as text, such as "3 done, 1 failed"."""
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "no jobs"
