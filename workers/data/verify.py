"""Opens every file of a data set and names those that are missing, broken, or contradict their annotation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import UnidentifiedImageError

from schemas.errors import DataError
from schemas.order import ReportProgress
from workers.data.checks import misfit
from workers.data.inventory import shortage
from workers.data.prepared.crops import UNREADABLE, load
from workers.data.prepared.file_facts import ImageFacts
from workers.data.readers.records import AnnotatedObject, Flaw
from workers.data.readers.sources import NEGATIVES, flaws_of, negative_images, present_categories, records_of


class Verified(NamedTuple):
    """What was found of one category, or of the folder of negatives."""

    category: str
    objects: int
    images: int
    flaws: tuple[Flaw, ...]
    note: str
    """Why no job could use it although its files are good; else empty."""


def verify(
    root: Path, categories: Sequence[str], cache_dir: Path | None, advance: ReportProgress = lambda *_: None
) -> list[Verified]:
    """Every given category that is there, and the negatives.

    Args:
        categories: ids; none means all that are there.
    """
    present = present_categories(root)
    named: set[Flaw] = set()
    found = []
    for name in present:
        if not categories or name in categories:
            one = _category(name, root, cache_dir, advance)
            # A file that cannot be read belongs to every category of its data set.
            found.append(one._replace(flaws=tuple(flaw for flaw in one.flaws if flaw not in named)))
            named.update(one.flaws)
    negatives = [AnnotatedObject(path, "", None, {}) for path in negative_images(root)]
    if negatives:
        found.append(_verified(NEGATIVES, negatives, [], advance, note=""))
    return [*found, *_absent(categories, present)]


def _absent(categories: Sequence[str], present: Sequence[str]) -> Iterator[Verified]:
    for name in categories:
        if name not in present:
            yield Verified(name, 0, 0, (), "not under this data root")


def _category(category: str, root: Path, cache_dir: Path | None, advance: ReportProgress) -> Verified:
    flaws: list[Flaw] = []
    try:
        flaws = flaws_of(category, root, cache_dir)
        records = records_of(category, root, cache_dir)
    except DataError as error:
        # The message names the file; where several are broken, the reader has told them apart.
        return Verified(category, 0, 0, tuple(flaws) or (Flaw(root, str(error)),), "its annotations cannot be read")
    return _verified(category, records, flaws, advance, shortage(len(records)))


def _verified(
    category: str, records: Sequence[AnnotatedObject], flaws: Iterable[Flaw], advance: ReportProgress, note: str
) -> Verified:
    of_image: dict[Path, list[AnnotatedObject]] = {}
    for record in records:
        of_image.setdefault(record.image, []).append(record)
    found = list(flaws)
    for done, (image, shown) in enumerate(of_image.items(), start=1):
        found += _of_image(image, shown)
        advance(category, done, len(of_image))
    return Verified(category, len(records), len(of_image), tuple(found), note)


def _of_image(image: Path, records: Sequence[AnnotatedObject]) -> Iterator[Flaw]:
    try:
        width, height = load(image).size
    except UNREADABLE as error:
        yield Flaw(image, why_unreadable(image, error))
        return
    for record in records:
        if (problem := misfit(record, ImageFacts("", width, height))) is not None:
            yield Flaw(image, problem)


def why_unreadable(path: Path, error: Exception) -> str:
    """In words of a person who looks for the file."""
    if not os.path.lexists(path):
        return "missing"
    if path.is_file() and not path.stat().st_size:
        return "empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "no image, whatever its name says"
    if "truncated" in str(error) or "broken data stream" in str(error):
        return f"cut off or damaged ({error})"
    return f"cannot be read ({error})"
