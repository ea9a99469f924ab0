"""What every kind of annotation is read into: the objects of a new data set, and the problems that stop the import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from schemas.categories import NEGATIVE_KEY, normal_name
from schemas.errors import DataError
from workers.data.disk_files import brief, printable, visible_names
from workers.data.readers.records import Box, Point
from workers.data.readers.sources import NEGATIVE_FOLDERS

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Files that are photographs."""
_SHOWN = 10
"""Problems that a message lists."""


@dataclass(frozen=True)
class NewObject:
    """One object to import."""

    image: str
    """Path of its photograph below the imported folder, with `/`."""
    category: str
    """Key; `neg` for a negative image."""
    box: Box | None = None
    """In pixels of the upright picture; None for the whole picture."""
    landmarks: Mapping[str, Point] = field(default_factory=dict)
    where: str = ""
    """File and line of its annotation; empty for a photograph without one."""


@dataclass(frozen=True)
class Annotated:
    """Everything that annotations say."""

    objects: Sequence[NewObject]
    landmarks: tuple[str, ...] = ()
    """In the order of the annotation."""
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Width and height of photographs, where the annotation has them."""
    notes: tuple[str, ...] = ()
    """What was not used, for the user."""


def import_error(problems: Sequence[str], advice: str = "") -> DataError:
    """Return the error that lists what is wrong with the files that were to be imported."""
    more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    lines = "\n  ".join([*problems[:_SHOWN], *more])
    return DataError(f"{lines}\nNothing was imported. {advice or 'Correct this, and repeat the command.'}")


def key_of(written: str) -> str:
    """Return the key of a category as a user names it; `neg` for the names of negatives, empty for no name."""
    name = normal_name(written)
    return NEGATIVE_KEY if name in NEGATIVE_FOLDERS else name


def list_images(folder: Path) -> tuple[list[str], list[str]]:
    """Return the photographs below a folder, and its other files: paths with `/`, sorted; hidden files are left out.

    Raises:
        DataError: a folder cannot be listed.
    """
    images: list[str] = []
    others: list[str] = []
    for name in _files(folder, PurePosixPath()):
        (images if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES else others).append(name)
    return images, others


def _files(folder: Path, below: PurePosixPath) -> Iterator[str]:
    for name in visible_names(folder):
        if (folder / name).is_dir():
            yield from _files(folder / name, below / name)
        else:
            yield str(below / name)


def is_negative(image: str) -> bool:
    """Whether a photograph lies in a folder of negatives."""
    return PurePosixPath(image).parts[0] in NEGATIVE_FOLDERS and "/" in image


def negatives_of(images: Sequence[str]) -> list[NewObject]:
    """Return the photographs in the folder of negatives as objects."""
    return [NewObject(name, NEGATIVE_KEY) for name in images if is_negative(name)]


def completed(objects: Sequence[NewObject], images: Sequence[str], lack: str) -> tuple[list[NewObject], list[str]]:
    """Add the photographs in the folder of negatives that no annotation names.

    Args:
        objects: of the annotation.
        images: all photographs below the imported folder.
        lack: what the annotation does not have for a photograph, such as `a.csv has no row of them`.

    Returns:
        The objects, and a note for the user if photographs are left out.
    """
    listed = {one.image for one in objects}
    rest = [name for name in images if name not in listed and not is_negative(name)]
    notes = [f"not imported, because {lack}: {some_names(rest)}"] if rest else []
    return [*objects, *(one for one in negatives_of(images) if one.image not in listed)], notes


def some_names(names: Sequence[str]) -> str:
    """Return the first of some file names for a message, and how many more there are."""
    shown = ", ".join(brief(printable(name)) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


class ImageNames:
    """Finds the photographs that annotations name: by their path, below `images/`, or by a unique file name."""

    def __init__(self, images: Sequence[str]) -> None:
        """Remember the photographs below the imported folder."""
        self._known = frozenset(images)
        self._by_name: dict[str, list[str]] = {}
        for image in images:
            self._by_name.setdefault(PurePosixPath(image).name, []).append(image)

    def find(self, written: str) -> str:
        """Return the path of a photograph below the imported folder.

        Raises:
            DataError: there is none, or there are several of this name.
        """
        for name in (written, f"images/{written}"):
            if name in self._known:
                return name
        alike = self._by_name.get(PurePosixPath(written).name, [])
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise DataError(f"several photographs are called {brief(written)}: {some_names(alike)}")
        raise DataError(f"there is no photograph {brief(printable(written))} in the folder")
