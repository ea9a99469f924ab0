"""What a photograph is called where networks tell species apart: CUB's species, other data sets' categories."""

from __future__ import annotations

from pathlib import Path

from schemas.categories import BY_ID
from schemas.job import SPECIES_OF, DataSpec
from workers.data.readers.records import AnnotatedObject
from workers.data.readers.sources import records_of


def species_label(category: str, record: AnnotatedObject) -> str:
    """`001.Black_footed_Albatross`, as CUB names the folder of a species; elsewhere the category's label."""
    if category == SPECIES_OF:
        return record.image.parent.name
    return BY_ID[category].label if category in BY_ID else category


def label_names(data: DataSpec, root: Path, cache_dir: Path | None) -> tuple[str, ...]:
    """One an output, in the order of the categories and of CUB's species; empty where labels are the categories."""
    if data.labels == "categories":
        return ()
    found: dict[str, None] = {}
    for category in data.categories:
        names = {species_label(category, record) for record in records_of(category, root, cache_dir)}
        found |= dict.fromkeys(sorted(names))
    return tuple(found)
