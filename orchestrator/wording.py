"""Numbers as text, for messages of several rooms."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """Return a duration as text: `45 s`, `10 min` or `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
