"""What every reader of photographs returns, and what a reader is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

from workers.data.readers.parse_cache import ParseCache

Point = tuple[float, float]
"""(row, column) in continuous pixels: the first pixel of an image spans 0 to 1, its centre is 0.5."""


class Box(NamedTuple):
    """A rectangle of pixels, in the same continuous coordinates."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels."""
        return self.bottom - self.top


class AnnotatedObject(NamedTuple):
    """One annotated object in one photograph."""

    image: Path
    object_id: str
    box: Box | None
    """None for the whole photograph."""
    landmarks: Mapping[str, Point]
    """The visible ones of the category's landmarks."""
    official: Literal["train", "test"] | None = None
    """Side of the data set's own split."""
    masks: Path | None = None
    """Pascal VOC Part's file with the masks of the object's parts."""
    size: tuple[int, int] | None = None
    """Width and height of the photograph, as annotated."""
    origin: str = ""
    """Name of the original photograph, for data sets that store one copy of it per object."""

    @property
    def photograph(self) -> str:
        """Name of the photograph; objects with the same one stay on one side of a split."""
        return self.origin or str(self.image)

    @property
    def name(self) -> str:
        """File name of the image, with `#` and the object's id where there is one."""
        return f"{self.image.name}#{self.object_id}" if self.object_id else self.image.name


class Flaw(NamedTuple):
    """A file that is missing, broken or contradictory."""

    path: Path
    why: str


class DatasetReader(Protocol):
    """Reads one data set in its published format.

    Another format is another implementation with an entry in `sources.READERS`. A reader may keep what it has read:
    changed annotations are seen by a new reader.
    """

    layout: ClassVar[str]
    """Files that the reader looks for under a data root, as a user would type them."""
    folder: Path

    def __init__(self, folder: Path, cache: ParseCache | None = None) -> None:
        """Open a data set.

        Args:
            folder: as `find` returns it.
            cache: keeps annotation files that are slow to parse.
        """

    @classmethod
    def find(cls, root: Path) -> Path | None:
        """Return the data set's folder under a data root, or None where it is absent."""

    def categories(self) -> list[str]:
        """Return the keys of the categories that have annotations, in a fixed order."""

    def annotation_files(self, key: str) -> list[Path]:
        """Return every file that determines `records`, images excepted."""

    def records(self, key: str) -> list[AnnotatedObject]:
        """Return all objects of a category whose box is large enough, in a fixed order.

        Raises:
            DataError: an annotation file cannot be understood.
        """

    def flaws(self, key: str) -> list[Flaw]:
        """Return the errors that `records` ignores or stops at, file by file."""


MIN_AREA = 50**2
"""Smallest area of a box in pixels, as in the released code."""


def is_large_enough(box: Box) -> bool:
    """Return whether a box has at least `MIN_AREA` pixels."""
    return box.width * box.height >= MIN_AREA
