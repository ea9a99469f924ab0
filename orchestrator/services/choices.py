"""The closed sets that options of commands choose from. It imports nothing slow, because `--help` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum


class Format(StrEnum):
    """File format of a report."""

    TEXT = "text"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"
    HTML = "html"
    JSON = "json"


class FrameFormat(StrEnum):
    """How a table of jobs is written."""

    TABLE = "table"
    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


FIGURES = (4, 5, 6)
"""Numbers of the figures of the paper that can be drawn."""
CRITERIA: Mapping[str, Callable[[Iterable[tuple[float, str]]], tuple[float, str]]] = {
    "test_accuracy": max, "tracking_share": max, "location_instability": min,
}  # fmt: skip
"""By which metric the best network is chosen, and whether high or low values are better."""
