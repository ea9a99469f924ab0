"""Numbers and times as text, for messages of several rooms."""

from __future__ import annotations

from datetime import datetime


def in_words(seconds: float) -> str:
    """Return a duration as text: `45 s`, `10 min` or `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def range_text(low: float, high: float) -> str:
    """Return the range of a duration as text: `10 min to 20 min`, or `about 10 min` if both ends read the same."""
    least, most = in_words(low), in_words(high)
    return f"about {least}" if least == most else f"{least} to {most}"


def when(seconds: float) -> str:
    """Return a time, in Unix seconds, as text in this machine's time zone: `2026-03-01 14:05:09`."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def to_the_minute(seconds: float) -> str:
    """Return a time as `when` does, without its seconds, for columns of a table."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
