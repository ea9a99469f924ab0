"""Opens every file of a data set and lists those that are missing, broken, or contradict their annotation."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import UnidentifiedImageError

from schemas.categories import NEGATIVE_KEY, category_of, is_imported
from schemas.errors import DataError
from schemas.order import ReportProgress
from workers.data.checks import misfit
from workers.data.data_root import DataRoot
from workers.data.disk_files import brief, printable, unusual_kind, visible_names
from workers.data.image_facts import UNREADABLE, ImageFacts
from workers.data.inventory import remarks, some
from workers.data.prepared.crops import load
from workers.data.readers.records import AnnotatedObject, AnnotationError, Flaw
from workers.data.readers.sources import NEGATIVES


class Verified(NamedTuple):
    """Result for one category, or for the folder of negatives."""

    category: str
    objects: int
    images: int
    flaws: tuple[Flaw, ...]
    note: str
    """Why a job could not use the category although its files are good, and what of it no job uses; else empty."""


def verify(root: DataRoot, categories: Sequence[str], advance: ReportProgress = lambda *_: None) -> list[Verified]:
    """Decode every image of some categories and of the folder of negatives.

    Args:
        categories: ids; empty for all that are present.
        advance: is called with the category, and its number of images done and in all.

    Returns:
        One result per category, present ones first, and one for the negatives where there are any.
    """
    present = root.present_categories()
    named: set[Flaw] = set()
    found = []
    for name in present:
        if not categories or name in categories:
            one = _category(name, root, advance)
            # An unreadable annotation file affects every category of its data set, and is listed once.
            found.append(one._replace(flaws=tuple(flaw for flaw in one.flaws if flaw not in named)))
            named.update(one.flaws)
    if (folder := root.negative_folder()) is not None:
        note = f"not images, so not used: {some(folder.unused)}" if folder.unused else ""
        found.append(_verified(NEGATIVES, root.records(NEGATIVES), [], advance, note))
    chosen = dict.fromkeys(category_of(name).dataset for name in (categories or present))
    own = (_imported_negatives(dataset, root, advance) for dataset in chosen if is_imported(dataset))
    return [*found, *(one for one in own if one is not None), *_absent(categories, present)]


def _imported_negatives(dataset: str, root: DataRoot, advance: ReportProgress) -> Verified | None:
    stock = f"{dataset}/{NEGATIVE_KEY}"
    try:
        records = root.records(stock)
    except DataError:  # the categories of the data set have the same flaw, or it is absent
        return None
    return _verified(stock, records, [], advance, "") if records else None


def _absent(categories: Sequence[str], present: Sequence[str]) -> Iterator[Verified]:
    for name in categories:
        if name not in present:
            yield Verified(name, 0, 0, (), "not under this data root")


def _category(category: str, root: DataRoot, advance: ReportProgress) -> Verified:
    flaws: list[Flaw] = []
    try:
        flaws = root.flaws(category)
        records = root.records(category)
    except DataError as error:
        # The message names one file; where several are broken, the reader has listed them.
        return Verified(category, 0, 0, tuple(flaws) or (_flaw(error, root),), "its annotations cannot be read")
    return _verified(category, records, flaws, advance, remarks(len(records), root.left_out(category)))


def _flaw(error: DataError, root: DataRoot) -> Flaw:
    return Flaw(error.path, error.why) if isinstance(error, AnnotationError) else Flaw(root.path, str(error))


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
    """Return why an image cannot be decoded, for a person who looks for the file."""
    try:
        if not os.path.lexists(path):
            return _missing(path)
        if kind := unusual_kind(path):
            return f"cannot be read: {kind}, not a file"
        if not path.stat().st_size:
            return "empty (0 bytes)"
    except FileNotFoundError:
        return "a link to a file that is missing"
    except (OSError, ValueError) as reason:
        return f"cannot be read ({brief(str(reason))})"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, despite its name"
    if "truncated" in str(error) or "broken data stream" in str(error):
        return f"truncated or damaged ({error})"
    return f"cannot be read ({brief(str(error), 100)})"


def _missing(path: Path) -> str:
    """Name the file that is probably meant: other case, or accents that another system composed differently."""
    alike = [name for name in visible_names(path.parent) if _plain(name) == _plain(path.name)]
    return f"missing; {printable(alike[0])} is there" if alike else "missing"


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
