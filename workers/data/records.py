"""What every reader of photographs returns, and what a reader is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Point = tuple[float, float]
"""(row, column) in continuous pixels: the first pixel of an image spans 0 to 1, its centre is 0.5."""


class Box(NamedTuple):
    """The pixels an object fills, in the same continuous coordinates."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


class Record(NamedTuple):
    """One annotated object in one photograph."""

    image: Path
    object_id: str
    box: Box | None
    """None takes the whole photograph."""
    landmarks: Mapping[str, Point]
    """Of the category's landmarks, the ones that can be seen."""
    official: Literal["train", "test"] | None = None
    """Where the data set's own split puts it."""
    masks: Path | None = None
    """The file of Pascal VOC Part that has the masks of its parts."""

    @property
    def name(self) -> str:
        return f"{self.image.name}#{self.object_id}" if self.object_id else self.image.name


class Reader(Protocol):
    """One published format. A further data set is one more of these, in `sources.READERS`."""

    layout: str
    """What the reader looks for under a data root, as a person would type it."""

    def find(self, root: Path) -> Path | None:
        """The folder in which the data set lies, if it is there."""

    def categories(self, folder: Path) -> list[str]:
        """Keys of the categories that have annotations, in a fixed order."""

    def annotation_files(self, folder: Path, key: str) -> list[Path]:
        """Every file that decides `records`, images apart."""

    def records(self, folder: Path, key: str) -> list[Record]:
        """All objects of a category whose box is large enough, in a fixed order.

        Raises:
            DataError: an annotation file cannot be understood.
        """
