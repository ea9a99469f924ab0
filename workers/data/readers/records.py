"""What every reader of photographs returns, and what a reader is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple, Protocol

from schemas.errors import DataError
from workers.data.disk_files import brief, printable
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


def checked_box(left: float, top: float, right: float, bottom: float) -> Box:
    """Return a box of at least some pixels.

    Raises:
        ValueError: a corner is not a finite number, or the box is empty or its corners are swapped.
    """
    corners = f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError(f"{corners} is not finite")
    if right <= left or bottom <= top:
        raise ValueError(f"{corners} is empty, or its corners are swapped")
    return Box(left, top, right, bottom)


BOX = "box"
"""Key of the box in `AnnotatedObject.where`, beside the names of the landmarks."""


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
    where: Mapping[str, str] = MappingProxyType({})
    """Annotation file, with line or index, of the box (`BOX`) and of each landmark."""

    @property
    def photograph(self) -> str:
        """Name of the photograph; objects with the same one stay on one side of a split."""
        return self.origin or str(self.image)

    @property
    def name(self) -> str:
        """File name of the image, with `#` and the object's id where there is one."""
        name = printable(self.image.name)
        return f"{name}#{self.object_id}" if self.object_id else name


class AnnotationError(DataError):
    """An annotation file cannot be used. Exit code 3."""

    path: Path
    why: str
    """Name of the file, place in it, and problem."""


def annotation_error(
    path: Path, why: str, at: str = "", *, what: str = "", advice: str = "Repair the file, or restore it."
) -> AnnotationError:
    """Return the error for an annotation file.

    Args:
        why: the problem; only its beginning is shown where it is long.
        at: place in the file, such as `line 3`.
        what: what the file should have been.
    """
    problem = f"{f', {at},' if at else ''} cannot be read{f' as {what}' if what else ''}: {brief(why, 200)}"
    error = AnnotationError(f"{printable(path)}{problem}. {advice}")
    error.path, error.why = path, f"{printable(path.name)}{problem}"
    return error


class LeftOut(NamedTuple):
    """Objects of an annotation file that no job uses."""

    objects: int
    why: str
    """Completes "3 objects are left out: ..."."""


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

    def left_out(self, key: str) -> list[LeftOut]:
        """Return how many sound objects `records` leaves out, and why.

        Raises:
            DataError: as `records`.
        """


MIN_AREA = 50**2
"""Smallest area of a box in pixels, as in the released code."""


def is_large_enough(box: Box) -> bool:
    """Return whether a box has at least `MIN_AREA` pixels."""
    return box.width * box.height >= MIN_AREA


def too_small(count: int) -> list[LeftOut]:
    """Return the entry of `left_out` for objects that are not large enough; empty for none."""
    return [LeftOut(count, f"boxes below {MIN_AREA} pixels")] if count else []
