"""Reads CUB-200-2011 in its original layout, which cropped editions of it share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

from schemas.categories import BY_ID
from schemas.errors import DataError
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import AnnotatedObject, Box, Flaw, Point, is_large_enough

_LANDMARKS = frozenset(BY_ID["cub200/bird"].landmarks)
_FILES = ("images.txt", "bounding_boxes.txt", "train_test_split.txt", "parts/parts.txt", "parts/part_locs.txt")
_SETS = ("cub200/CUB_200_2011", "CUB_200_2011", ".", "cub200", "cub200_crops227/CUB_200_2011")


class Cub200:
    """CUB-200-2011: one category, `bird`."""

    layout: ClassVar[str] = (
        "CUB_200_2011/{images.txt, bounding_boxes.txt, train_test_split.txt, parts/*.txt, images/*/*.jpg}"
    )

    def __init__(self, folder: Path, cache: ParseCache | None = None) -> None:
        """Open the data set; its text files are parsed without the cache."""
        self.folder = folder

    @classmethod
    def find(cls, root: Path) -> Path | None:
        """Return the folder with `images.txt` and `images/`, or None."""
        for name in _SETS:
            folder = root / name
            if (folder / "images.txt").is_file() and (folder / "images").is_dir():
                return folder
        return None

    def categories(self) -> list[str]:
        """Return the only key, `bird`."""
        return ["bird"]

    def annotation_files(self, key: str) -> list[Path]:
        """Return the five text files."""
        return [self.folder / name for name in _FILES]

    def records(self, key: str) -> list[AnnotatedObject]:
        """Return every listed bird whose box is large enough.

        Raises:
            DataError: a text file is missing, or a line of it cannot be understood.
        """
        missing = [name for name in _FILES if not (self.folder / name).is_file()]
        if missing:
            raise DataError(
                f"{self.folder} has no {', '.join(missing)}. CUB-200-2011 needs {self.layout}; unpack its archive as "
                "it is."
            )
        return _read(self.folder)

    def flaws(self, key: str) -> list[Flaw]:
        """Return nothing: `records` reads the text files completely or refuses them."""
        return []


def _read(folder: Path) -> list[AnnotatedObject]:
    listed = {key: " ".join(rest) for key, rest in _by_id(folder / "images.txt", numbers=1)}
    boxes = {key: _box(rest) for key, rest in _by_id(folder / "bounding_boxes.txt", numbers=5)}
    official: dict[str, Literal["train", "test"]] = {
        key: "train" if flag == "1" else "test"
        for key, (flag,) in _by_id(folder / "train_test_split.txt", numbers=2, flag=True)
    }
    unboxed = [name for key, name in listed.items() if key not in boxes or key not in official]
    if unboxed:
        raise DataError(
            f"{folder}/images.txt lists {unboxed[0]} and {len(unboxed) - 1} more without a line in bounding_boxes.txt "
            "or train_test_split.txt. Take all files from the same copy of CUB-200-2011."
        )
    landmarks = _landmarks(folder)
    return [
        AnnotatedObject(folder / "images" / name, "", boxes[key], landmarks.get(key, {}), official[key])
        for key, name in listed.items()
        if is_large_enough(boxes[key])
    ]


def _landmarks(folder: Path) -> dict[str, dict[str, Point]]:
    """Return the visible landmarks of the category, by image id."""
    names = {key: " ".join(rest) for key, rest in _by_id(folder / "parts/parts.txt", numbers=1)}
    if not set(names.values()) >= _LANDMARKS:
        lacking = ", ".join(sorted(_LANDMARKS - set(names.values())))
        raise DataError(f"{folder}/parts/parts.txt does not name {lacking}. Restore it from the CUB-200-2011 archive.")
    path = folder / "parts/part_locs.txt"
    landmarks: dict[str, dict[str, Point]] = {}
    for at, (key, part, x, y, visible) in _fields(path, numbers=5, flag=True):
        if part not in names:
            raise _unreadable(path, at, f"part {part} is not one of parts/parts.txt")
        if visible == "1" and names[part] in _LANDMARKS:
            # CUB's coordinates count from 0 (boxes of all 11,788 images begin there), so they are taken as they are.
            if names[part] in landmarks.setdefault(key, {}):
                raise _unreadable(path, at, f"image {key} has its {names[part]} twice")
            landmarks[key][names[part]] = (float(y), float(x))
    return landmarks


def _by_id(path: Path, numbers: int, *, flag: bool = False) -> Iterator[tuple[str, list[str]]]:
    seen: set[str] = set()
    for at, (key, *rest) in _fields(path, numbers, flag=flag):
        if key in seen:
            raise _unreadable(path, at, f"id {key} occurs twice")
        seen.add(key)
        yield key, rest


def _box(values: list[str]) -> Box:
    x, y, width, height = map(float, values)
    return Box(x, y, x + width, y + height)


def _fields(path: Path, numbers: int, *, flag: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the words of each line that is not blank.

    Args:
        numbers: numbers that a line must have; 1 stands for one number and a name.
        flag: whether the last number must be 0 or 1.
    """
    for at, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        is_complete = len(words) >= 2 if numbers == 1 else len(words) == numbers
        if not is_complete or not _are_numbers(words[:numbers]):
            raise _unreadable(path, at, f"{line!r} should {_shape(numbers)}")
        if flag and words[-1] not in ("0", "1"):
            raise _unreadable(path, at, f"{line!r} should end with 0 or 1")
        yield at, words


def _unreadable(path: Path, at: int, why: str) -> DataError:
    return DataError(f"{path}, line {at}, cannot be read: {why}. Restore the file from the CUB-200-2011 archive.")


def _shape(numbers: int) -> str:
    return "be a number and a name" if numbers == 1 else f"be {numbers} numbers"


def _are_numbers(words: Iterable[str]) -> bool:
    return all(word.removeprefix("-").replace(".", "", 1).isdigit() for word in words)
