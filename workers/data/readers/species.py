"""The label of a photograph where networks distinguish species: CUB's species, or another data set's category."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from schemas.categories import category_of, is_category
from schemas.job import SPECIES_OF, DataSpec
from workers.data.readers.records import AnnotatedObject


def species_label(category: str, record: AnnotatedObject) -> str:
    """Return CUB's name of the species, such as `001.Black_footed_Albatross`; elsewhere the category's label."""
    if category == SPECIES_OF:
        return record.image.parent.name
    return category_of(category).label if is_category(category) else category


def label_names(data: DataSpec, records_of: Callable[[str], Iterable[AnnotatedObject]]) -> tuple[str, ...]:
    """Return one name per output, in the order of the categories and of CUB's species.

    Empty where the labels are the categories.

    Args:
        records_of: returns the objects of a category.
    """
    if data.labels != "species":
        return ()
    found: dict[str, None] = {}
    for category in data.categories:
        names = {species_label(category, record) for record in records_of(category)}
        found |= dict.fromkeys(sorted(names))
    return tuple(found)
