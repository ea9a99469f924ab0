"""Whether data can carry a job, and the digest that identifies them; both are fast enough for planning."""

from __future__ import annotations

from schemas.categories import category_of, is_imported
from schemas.errors import DataError
from schemas.job import DataSpec
from workers.data.data_root import DataRoot
from workers.data.digests import combine
from workers.data.disk_files import printable
from workers.data.generated.animals import GENERATOR_VERSION
from workers.data.image_facts import ImageFacts, skip_limit, too_many_unreadable
from workers.data.readers.records import BOX, AnnotatedObject, Box
from workers.data.readers.sources import FURTHER_BIRDS, NEGATIVES

MIN_IMAGES = 50
"""Objects that a category needs: with fewer, the test split has less than five images to measure a filter on."""

MIN_NEGATIVES = 50
"""Images without the animal that a single-category job needs: with fewer, the test split has less than five."""

_TOLERANCE = 1.5
"""Pixels by which an annotation may exceed the image: published boxes are rounded."""


def check_data(data: DataSpec, root: DataRoot) -> None:
    """Check that photographs can carry a job. Each category is read and checked once per opened root.

    Raises:
        DataError: too few images, too many unreadable ones, or an annotation outside its image.
    """
    if data.labels == "everything":
        for stock in root.stocks():
            check_category(stock, root)
        return
    for category in data.categories:
        check_category(category, root)
    _check_counts(data, root)
    if data.negatives == "folder":
        _check_negative_folder(data.categories[0], root)
    elif data.is_single:
        _check_others(data.categories[0], root)


def _check_negative_folder(category_id: str, root: DataRoot) -> None:
    stock = root.negative_stock(category_id)
    check_category(stock, root)
    if (usable := root.usable_count(stock)) < MIN_NEGATIVES:
        raise DataError(
            f"Too few negatives: {root.records(stock)[0].image.parent} has {usable} images that can be read, a job "
            f"needs {MIN_NEGATIVES}. Put more photographs there, or set `data.negatives: other_categories`."
        )


def _check_others(category_id: str, root: DataRoot) -> None:
    """Check the photographs of other categories that serve as negatives."""
    others = [other for other in root.other_categories(category_id) if root.records(other)]
    if not others:
        raise DataError(f"{category_id} has no negatives: {root.place} holds no other animal. {_advice(category_id)}")
    for other in others:
        check_category(other, root)
    counts = {other: root.usable_count(other) for other in others}
    if sum(counts.values()) < MIN_NEGATIVES:
        named = ", ".join(f"{other} {count}" for other, count in counts.items())
        raise DataError(
            f"{category_id} has too few negatives: the other animals under {root.place} are {sum(counts.values())} "
            f"({named}), a job needs {MIN_NEGATIVES}. {_advice(category_id)}"
        )


def _advice(category_id: str) -> str:
    """Return how negatives are given."""
    if is_imported(category_of(category_id).dataset):
        return "Import it again with a folder `neg/` of other photographs, or with a second category."
    return "Add another category's photographs, or set `data.negatives: folder` and give a folder `neg/`."


def check_category(category_id: str, root: DataRoot) -> None:
    """Compare each annotation of a category, or of the negatives, with its image, once per opened root.

    Raises:
        DataError: an annotation contradicts its image, or too many images are unreadable.
    """
    if category_id in root.fitting:
        return
    what = {NEGATIVES: "the negatives' folder", FURTHER_BIRDS: "further CUB birds"}.get(category_id, category_id)
    records, unreadable = root.records(category_id), []
    for record, facts in zip(records, root.category_facts(category_id), strict=True):
        if not facts.is_readable:
            unreadable.append(record.name)
        elif (problem := misfit(record, facts)) is not None:
            raise DataError(
                f"{what}: {problem} ({printable(record.image)}). "
                "The image was probably resized or replaced: restore it, or correct the annotation."
            )
    if len(unreadable) > skip_limit(len(records)):
        raise too_many_unreadable(what, unreadable, len(records))
    root.fitting.add(category_id)


def misfit(record: AnnotatedObject, facts: ImageFacts) -> str | None:
    """Return how an annotation contradicts its image, or None where the two agree."""
    annotated, actual = record.size, (facts.width, facts.height)
    if annotated is not None and annotated != actual:
        return (
            f"{record.name} is annotated as {annotated[0]} x {annotated[1]} pixels, and its image has "
            f"{actual[0]} x {actual[1]}{_place(record, BOX)}"
        )
    outside = _outside(record, facts.width, facts.height)
    if outside is None:
        return None
    key, what = outside
    return f"{what} of {record.name} lies outside its image, {facts.width} x {facts.height} pixels{_place(record, key)}"


def _place(record: AnnotatedObject, key: str) -> str:
    return f"; see {printable(record.where[key])}" if key in record.where else ""


def _outside(record: AnnotatedObject, width: int, height: int) -> tuple[str, str] | None:
    """Return the key in `record.where`, and the words, of what is not within the image."""
    box = record.box
    if box is not None and not _is_inside(box, width, height):
        return BOX, f"box ({box.left:g}, {box.top:g}) to ({box.right:g}, {box.bottom:g})"
    for name, (row, column) in record.landmarks.items():
        if not (-_TOLERANCE <= row <= height + _TOLERANCE and -_TOLERANCE <= column <= width + _TOLERANCE):
            return name, f"landmark {name} (row {row:g}, column {column:g})"
    return None


def _is_inside(box: Box, width: int, height: int) -> bool:
    """Return whether a box ends near the image's border at most, and something of it is left within."""
    exceeds = (-box.left, -box.top, box.right - width, box.bottom - height)
    left = (min(box.right, width) - max(box.left, 0), min(box.bottom, height) - max(box.top, 0))
    return max(exceeds) <= _TOLERANCE and min(left) > 0


def _check_counts(data: DataSpec, root: DataRoot) -> None:
    short = {name: found for name in data.categories if (found := root.usable_count(name)) < MIN_IMAGES}
    if not short:
        return
    named = ", ".join(f"{name} has {found}" for name, found in short.items())
    enough = [name for name in data.categories if name not in short]
    if enough:
        advice = f"These would run: --category {','.join(enough)}"
    elif others := [name for name in root.present_categories() if root.usable_count(name) >= MIN_IMAGES]:
        advice = f"Other categories would run: --grid all-categories --category {','.join(others)}"
    else:
        advice = "No category under this root has enough."
    raise DataError(f"Too few photographs under {root.place}: {named}, a category needs {MIN_IMAGES}. {advice}")


def data_digest(data: DataSpec, root: DataRoot) -> str:
    """Return the digest of every image and annotation that may enter a job on photographs, or be held out by it.

    With the labels `everything` these are all of the data root, because the test sides of all are left out.

    Raises:
        DataError: an annotation file cannot be understood.
    """
    if data.labels == "everything":
        return combine(root.category_digest(stock) for stock in root.stocks())[:16]
    takes_others = data.negatives == "other_categories" and data.is_single
    others = root.other_categories(data.categories[0]) if takes_others else []
    parts = [root.category_digest(name) for name in (*data.categories, *others, *data.held_out_categories)]
    if data.negatives == "folder":
        parts.append(root.category_digest(root.negative_stock(data.categories[0])))
    if data.test_per_category is not None and not data.is_single:
        parts.append("whole test sides are held out")  # such a job used to train on photographs that it did not test
    return combine(parts)[:16]


def generated_digest() -> str:
    """Return the digest of generated animals, which the generator's version determines."""
    return f"generated-{GENERATOR_VERSION}"
