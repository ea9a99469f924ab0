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


class AnnotatedObject(NamedTuple):
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
    size: tuple[int, int] | None = None
    """Width and height that the annotation says the photograph has."""
    origin: str = ""
    """Name of the photograph, where each of its objects has a copy of it as a file of its own."""

    @property
    def photograph(self) -> str:
        """Equal for objects of one photograph, which belong on one side of a split."""
        return self.origin or str(self.image)

    @property
    def name(self) -> str:
        return f"{self.image.name}#{self.object_id}" if self.object_id else self.image.name


class Flaw(NamedTuple):
    """A file that is missing, broken, or says what cannot be."""

    path: Path
    why: str


class DatasetReader(Protocol):
    """One published format. A further data set is one more of these, in `sources.READERS`."""

    layout: str
    """What the reader looks for under a data root, as a person would type it."""

    def find(self, root: Path) -> Path | None:
        """The folder in which the data set lies, if it is there."""

    def categories(self, folder: Path) -> list[str]:
        """Keys of the categories that have annotations, in a fixed order."""

    def annotation_files(self, folder: Path, key: str, cache_dir: Path | None = None) -> list[Path]:
        """Every file that decides `records`, images apart."""

    def records(self, folder: Path, key: str, cache_dir: Path | None = None) -> list[AnnotatedObject]:
        """All objects of a category whose box is large enough, in a fixed order.

        Args:
            cache_dir: where annotations that take long to read may be remembered.

        Raises:
            DataError: an annotation file cannot be understood.
        """

    def flaws(self, folder: Path, key: str, cache_dir: Path | None = None) -> list[Flaw]:
        """What `records` drops in silence or stops at the first of, file by file."""


MIN_AREA = 50**2
"""Boxes of fewer pixels are dropped, as in the released code."""


def is_large_enough(box: Box) -> bool:
    return box.width * box.height >= MIN_AREA
