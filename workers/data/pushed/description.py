"""What a data root says about its photographs, as records that a machine without the photographs plans and trains by.

Objects of the store, all below `data/`:

    data/<data set>.json            which description counts, and the sizes whose pictures are there; written last
    data/descriptions/<digest>.json everything annotated under one data root, and what is known of its images
    data/image-sets/<key>.json      the shards of one prepared set
    data/shards/<sha256>            a piece of its pictures
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from schemas.base import Frozen
from schemas.categories import Category, category_of, is_imported
from schemas.errors import DataError
from schemas.job import RECIPE_VERSION
from workers.data.data_root import DataRoot
from workers.data.digests import content_digest, masks_digest
from workers.data.disk_files import printable
from workers.data.image_facts import ImageFacts
from workers.data.readers.imported import ImportedCategory
from workers.data.readers.records import AnnotatedObject, Box
from workers.data.readers.sources import NEGATIVES

SHARDS = "data/shards/"
"""Prefix of the keys of shards."""


class Lenient(Frozen):
    """A record that another version of orch may have written with more fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class StoredObject(Lenient):
    """An annotated object, without where its annotation is."""

    image: str
    """Path of its photograph below the data root."""
    object_id: str
    box: tuple[float, float, float, float] | None
    landmarks: dict[str, tuple[float, float]]
    official: Literal["train", "test"] | None
    masks: bool
    """Whether the object has part masks."""
    size: tuple[int, int] | None
    origin: str
    facts: tuple[str, int, int]
    """Digest, width and height of the photograph."""


class StoredCategory(Lenient):
    """A category, or the folder of negatives."""

    digest: str
    """Digest of annotations and images, which enters the keys of jobs."""
    content: str
    """Digest of everything that determines the prepared pictures."""
    masks: str
    """Digest of the files of part masks; empty without masks for all objects."""
    objects: tuple[StoredObject, ...]


class Description(Lenient):
    """Everything that jobs ask of a data root, pictures excepted."""

    recipe: int
    """`RECIPE_VERSION` of the code that prepared the pictures."""
    present: tuple[str, ...]
    """Ids of the categories that have annotations, in the paper's order."""
    categories: dict[str, StoredCategory]
    """By category, and NEGATIVES and other stocks where there are such photographs."""
    imported: dict[str, ImportedCategory] = Field(default_factory=dict)
    """Landmarks and parts of imported categories, by id."""

    @property
    def encoded(self) -> bytes:
        """The description as it is stored."""
        fields = self.model_dump(mode="json", exclude=None if self.imported else {"imported"})
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


class SizeOnStore(Lenient):
    """The prepared pictures of one size."""

    bytes: int
    """Size of all pictures and part maps."""


class Head(Lenient):
    """Which description of a data set counts."""

    description: str
    """Digest of the description, its name in the store."""
    sizes: dict[str, SizeOnStore]
    """By the side of the square pictures, in pixels."""
    pushed_at: float
    """Time of the push, Unix seconds."""
    pushed_from: str
    """Name of the machine."""
    objects: dict[str, int]
    """Number of annotated objects, by category."""


class Shard(Lenient):
    """A piece of a file of a set."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: int


class SetOnStore(Lenient):
    """A prepared set: its array in pieces, and the list of its rows."""

    images: tuple[Shard, ...]
    info: Shard

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All of its shards."""
        return (*self.images, self.info)

    @property
    def bytes(self) -> int:
        """Size of the whole set."""
        return sum(shard.bytes for shard in self.shards)


def head_key(dataset: str) -> str:
    """Return the key of the record that makes a data set present."""
    return f"data/{dataset}.json"


def description_key(digest: str) -> str:
    """Return the key of a description."""
    return f"data/descriptions/{digest}.json"


def set_record_key(key: str) -> str:
    """Return the key of the record of a prepared set."""
    return f"data/image-sets/{key}.json"


def describe(root: DataRoot) -> tuple[Description, str]:
    """Return the description of a data root, and its digest.

    Raises:
        DataError: an annotation file cannot be understood.
    """
    present = root.present_categories()
    described = Description(
        recipe=RECIPE_VERSION,
        present=tuple(present),
        categories={name: _category(name, root) for name in root.stocks()},
        imported={
            one.id: ImportedCategory(landmarks=one.landmarks, parts=one.parts)
            for one in map(root.category, present)
            if is_imported(one.dataset)
        },
    )
    return described, hashlib.sha256(described.encoded).hexdigest()[:16]


def _category(name: str, root: DataRoot) -> StoredCategory:
    records, facts = root.records(name), root.category_facts(name)
    return StoredCategory(
        digest=root.category_digest(name),
        content=content_digest(records, facts),
        masks=masks_digest(records),
        objects=tuple(_object(one, of_image, root.path) for one, of_image in zip(records, facts, strict=True)),
    )


def _object(record: AnnotatedObject, facts: ImageFacts, root: Path) -> StoredObject:
    image = str(record.image.relative_to(root))
    if image != printable(image):
        raise DataError(
            f"{printable(record.image)} has a name that is not UTF-8, which the object store cannot hold. Rename it."
        )
    return StoredObject(
        image=image,
        object_id=record.object_id,
        box=None if record.box is None else (record.box.left, record.box.top, record.box.right, record.box.bottom),
        landmarks={name: (float(row), float(column)) for name, (row, column) in record.landmarks.items()},
        official=record.official,
        masks=record.masks is not None,
        size=record.size,
        origin=record.origin,
        facts=(facts.digest, facts.width, facts.height),
    )


class DescribedRoot(DataRoot):
    """A data root of which only the description is here, and whose pictures are in the object store."""

    def __init__(self, description: Description, where: str, cache_dir: Path | None) -> None:
        """Open a description.

        Args:
            where: address of the object store, for messages.
            cache_dir: where pulled pictures are kept; None for planning.
        """
        super().__init__(Path(where), cache_dir)
        self.place = where
        self._description = description

    def present_categories(self) -> list[str]:
        """Return the ids of the categories that have annotations, in the paper's order."""
        return list(self._description.present)

    def category(self, category_id: str) -> Category:
        """Return a category with its landmarks and parts, as its data root had them."""
        found, own = category_of(category_id), self._description.imported.get(category_id)
        return found if own is None else found._replace(landmarks=own.landmarks, parts=own.parts)

    def negative_images(self) -> list[Path]:
        """Return the paths that the images of the folder of negatives had where they were pushed from."""
        return [record.image for record in self.records(NEGATIVES)] if NEGATIVES in self._description.categories else []

    def records(self, category_id: str) -> tuple[AnnotatedObject, ...]:
        """Return every usable object of a category; empty where its data set is absent.

        Raises:
            DataError: there is no folder of negatives with images.
        """
        if category_id not in self._records:
            stored = self._description.categories.get(category_id)
            if stored is None and category_id == NEGATIVES:
                raise DataError(
                    f"`data.negatives` is 'folder', but the data in {self.path} were pushed without a folder neg/. "
                    "Push a data root that has one, or set `data.negatives: other_categories`."
                )
            self._records[category_id] = tuple(self._record(one) for one in stored.objects) if stored else ()
        return self._records[category_id]

    def category_facts(self, category_id: str) -> list[ImageFacts]:
        """Return what was known of the image of each of `records(category_id)` when it was pushed."""
        stored = self._description.categories.get(category_id)
        return [ImageFacts(*one.facts) for one in stored.objects] if stored else []

    def category_digest(self, category_id: str) -> str:
        """Return the digest of a category, as its data root had it."""
        stored = self._description.categories.get(category_id)
        return stored.digest if stored else super().category_digest(category_id)

    def content_digest(self, category_id: str) -> str:
        """Return the digest of everything that determines the prepared pictures of a category."""
        return self._description.categories[category_id].content

    def masks_digest(self, category_id: str) -> str:
        """Return the digest of the files of part masks of a category."""
        return self._description.categories[category_id].masks

    def _record(self, one: StoredObject) -> AnnotatedObject:
        image = Path(PurePath(one.image))
        return AnnotatedObject(
            image=image,
            object_id=one.object_id,
            box=None if one.box is None else Box(*one.box),
            landmarks=one.landmarks,
            official=one.official,
            masks=image if one.masks else None,
            size=one.size,
            origin=one.origin,
        )
