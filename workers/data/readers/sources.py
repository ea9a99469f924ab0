"""Where the photographs of a category, and of its negatives, come from under a data root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from schemas.categories import BY_ID, CATEGORIES, DatasetName
from schemas.errors import DataError
from workers.data.readers.cub import Cub200
from workers.data.readers.ilsvrc import IlsvrcAnimalPart
from workers.data.readers.records import AnnotatedObject, DatasetReader, Flaw
from workers.data.readers.voc import VocPart

READERS: Mapping[DatasetName, DatasetReader] = MappingProxyType(
    {"ilsvrc_animal_part": IlsvrcAnimalPart(), "voc_part": VocPart(), "cub200": Cub200()}
)
"""By data set. A further format is one more entry."""

NEGATIVES = "negatives"
"""What stands for a category's id where a folder of photographs gives the negatives."""

_SAME_ANIMAL = {"cattle": "cow"}
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_NEGATIVE_FOLDERS = ("neg", "negatives")


def data_root_or_error(data_root: Path | None) -> Path:
    """The data root, once it is known to be a folder that holds at least one data set."""
    if data_root is None:
        raise DataError(f"Photographs are asked for, but no data root is given. Pass `--data-root FOLDER`. {layouts()}")
    if not data_root.is_dir():
        raise DataError(f"The data root {data_root} is not a folder. Check `--data-root`. {layouts()}")
    if not any(reader.find(data_root) for reader in READERS.values()):
        held = sorted(path.name for path in data_root.iterdir())[:8]
        inside = f"only {', '.join(held)}" if held else "it is empty"
        raise DataError(f"The data root {data_root} holds no data set that can be read: {inside}. {layouts()}")
    return data_root


def layouts() -> str:
    known = "; ".join(f"{name}: {reader.layout}" for name, reader in READERS.items())
    return f"A data root holds one or more of these ({known}), and for `negatives: folder` a folder `neg/` of images."


def records_of(category_id: str, root: Path, cache_dir: Path | None = None) -> list[AnnotatedObject]:
    """Every usable object of a category; empty when its data set is not there.

    Args:
        cache_dir: where annotations that take long to read may be remembered.

    Raises:
        DataError: an annotation file cannot be understood.
    """
    reader, folder = _locate(category_id, root)
    return reader.records(folder, BY_ID[category_id].key, cache_dir) if folder else []


def annotation_files(category_id: str, root: Path, cache_dir: Path | None = None) -> list[Path]:
    reader, folder = _locate(category_id, root)
    return reader.annotation_files(folder, BY_ID[category_id].key, cache_dir) if folder else []


def flaws_of(category_id: str, root: Path, cache_dir: Path | None = None) -> list[Flaw]:
    reader, folder = _locate(category_id, root)
    return reader.flaws(folder, BY_ID[category_id].key, cache_dir) if folder else []


def _locate(category_id: str, root: Path) -> tuple[DatasetReader, Path | None]:
    reader = READERS[BY_ID[category_id].dataset]
    return reader, reader.find(root)


def present_categories(root: Path) -> list[str]:
    """Ids of the categories that have annotations under the root, in the paper's order."""
    keys: dict[DatasetName, list[str]] = {}
    for dataset, reader in READERS.items():
        folder = reader.find(root)
        keys[dataset] = reader.categories(folder) if folder else []
    return [category.id for category in CATEGORIES if category.key in keys[category.dataset]]


def other_categories(category_id: str, root: Path) -> list[str]:
    """Categories whose photographs can be negatives: present, and not the same animal in another data set."""
    own = _animal(category_id)
    return [name for name in present_categories(root) if _animal(name) != own]


def _animal(category_id: str) -> str:
    name = BY_ID[category_id].name
    return _SAME_ANIMAL.get(name, name)


def negative_folder(root: Path) -> list[AnnotatedObject]:
    """The photographs of the folder of negatives, whole.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    images = negative_images(root)
    if not images:
        raise DataError(
            f"`data.negatives` is 'folder', but {root} has no images in "
            f"{' or '.join(f'{name}/' for name in _NEGATIVE_FOLDERS)}. "
            "Put photographs there (.jpg, .jpeg, .png), or set `data.negatives: other_categories`."
        )
    return [AnnotatedObject(path, "", None, {}) for path in images]


def negative_images(root: Path) -> list[Path]:
    """Of the first folder that has any."""
    for name in _NEGATIVE_FOLDERS:
        folder = root / name
        if folder.is_dir():
            images = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
            if images:
                return images
    return []
