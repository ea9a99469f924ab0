"""Which data sets can be read, and which photographs serve as negatives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from schemas.categories import category_of
from workers.data.disk_files import visible_names
from workers.data.readers.cub import Cub200
from workers.data.readers.ilsvrc import IlsvrcAnimalPart
from workers.data.readers.records import DatasetReader
from workers.data.readers.voc import VocPart

READERS: Mapping[str, type[DatasetReader]] = MappingProxyType(
    {"ilsvrc_animal_part": IlsvrcAnimalPart, "voc_part": VocPart, "cub200": Cub200}
)
"""Readers of the paper's data sets. Another format is one more entry; `imported` reads all imported ones."""

NEGATIVES = "negatives"
"""Stands for a category's id where the negatives are a folder of photographs."""

FURTHER_BIRDS = "cub200-further"
"""Stands for a category's id where the photographs are those of further editions of CUB-200-2011, of birds that the
first one does not have. Only pre-training on everything labelled uses them."""

NEGATIVE_FOLDERS = ("neg", "negatives")
"""Names of that folder under a data root."""

_SAME_ANIMAL = {"cattle": "cow"}
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def layouts() -> str:
    """Return the files that are looked for under a data root, for messages."""
    known = "; ".join(f"{name}: {reader.layout}" for name, reader in READERS.items())
    return (
        f"A data root holds one or more of these ({known}), and for `negatives: folder` a folder `neg/` of images. "
        "To make a data set of your own photographs: orch data import FOLDER --name NAME"
    )


def other_animals(category_id: str, categories: Iterable[str]) -> list[str]:
    """Return those of `categories` that are not the category's animal, in whichever data set."""
    own = animal(category_id)
    return [name for name in categories if animal(name) != own]


def animal(category_id: str) -> str:
    """Return the name of a category's animal, the same in every data set."""
    name = category_of(category_id).name
    return _SAME_ANIMAL.get(name, name)


class NegativeFolder(NamedTuple):
    """The folder of photographs without animals."""

    path: Path
    images: list[Path]
    """In order of their names."""
    unused: list[str]
    """Names of its other entries, such as folders and files that are not images; hidden ones are not named."""


def find_negatives(root: Path) -> NegativeFolder | None:
    """Return the first folder of negatives that has any image, or None.

    Raises:
        DataError: a folder cannot be listed.
    """
    for folder in (root / name for name in NEGATIVE_FOLDERS):
        names = visible_names(folder)
        images = [name for name in names if Path(name).suffix.lower() in _IMAGE_SUFFIXES]
        if images:
            return NegativeFolder(folder, [folder / name for name in images], sorted(set(names) - set(images)))
    return None
