"""One opened folder of photographs: where its data sets are, what their annotations say, and what its images are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from schemas.categories import BY_ID, CATEGORIES, DatasetName
from schemas.errors import DataError
from workers.data.digests import combine, file_digest, records_digest
from workers.data.disk_files import brief, printable, visible_names
from workers.data.file_cache import FileCache
from workers.data.image_facts import ImageFacts, read_facts
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import AnnotatedObject, DatasetReader, Flaw, LeftOut
from workers.data.readers.sources import (
    NEGATIVE_FOLDERS,
    NEGATIVES,
    READERS,
    NegativeFolder,
    find_negatives,
    layouts,
    other_animals,
)


class DataRoot:
    """A data root, opened once for everything that a plan or a job asks of it.

    Data sets are located, annotations read, and the images of a category read and hashed at most once per opened root.
    Later changes on disk are seen by a root that is opened again; only `image_facts` compares stamps at each call.
    Facts that are slow to compute are also kept under `cache_dir`, which may be shared, read-only or absent. An
    instance belongs to one thread.
    """

    def __init__(self, path: Path, cache_dir: Path | None = None) -> None:
        """Open a folder without looking at it; `open` also validates it.

        Args:
            path: folder of the photographs.
            cache_dir: keeps facts about files and prepared images between processes; None writes nothing.
        """
        self.path = path
        self.cache_dir = cache_dir
        self.fitting: set[str] = set()
        """Categories, or `NEGATIVES`, whose annotations `checks` found to agree with their images."""
        self._readers: dict[DatasetName, DatasetReader | None] = {}
        self._parsed = ParseCache(cache_dir)
        self._images = FileCache(
            read_facts,
            is_readable=lambda facts: facts.is_readable,
            stored_at=None if cache_dir is None else cache_dir / "files.json",
            decode=lambda stored: ImageFacts(*stored),
        )
        self._annotation_digests = FileCache(file_digest, is_readable=lambda _: True)
        self._present: list[str] | None = None
        self._negatives: list[NegativeFolder | None] = []
        self._records: dict[str, tuple[AnnotatedObject, ...]] = {}
        self._facts: dict[str, list[ImageFacts]] = {}
        self._digests: dict[str, str] = {}

    @classmethod
    def open(cls, path: Path | None, cache_dir: Path | None = None, *, may_be_empty: bool = False) -> Self:
        """Open a data root and check that it can be used.

        Args:
            path: folder of the photographs; None is refused.
            cache_dir: as for the constructor.
            may_be_empty: accept a folder without a data set.

        Raises:
            DataError: no path is given, it is not a folder, or no data set is in it.
        """
        if path is None:
            raise DataError(
                f"Photographs need a data root, but no data root is given. Pass `--data-root FOLDER`. {layouts()}"
            )
        if not os.path.isdir(path):
            raise DataError(f"The data root {path} is not a folder. Check `--data-root`. {layouts()}")
        root = cls(path, cache_dir)
        if not may_be_empty and not any(root.reader(dataset) for dataset in READERS):
            held = [brief(printable(name), 30) for name in visible_names(path)[:8]]
            inside = f"only {', '.join(held)}" if held else "it is empty"
            raise DataError(f"The data root {path} holds no data set that can be read: {inside}. {layouts()}")
        return root

    def reader(self, dataset: DatasetName) -> DatasetReader | None:
        """Return the reader of a data set, or None where the data set is absent."""
        if dataset not in self._readers:
            folder = READERS[dataset].find(self.path)
            self._readers[dataset] = None if folder is None else READERS[dataset](folder, self._parsed)
        return self._readers[dataset]

    def folder(self, dataset: DatasetName) -> Path | None:
        """Return the folder of a data set, or None where the data set is absent."""
        reader = self.reader(dataset)
        return reader.folder if reader else None

    def present_categories(self) -> list[str]:
        """Return the ids of the categories that have annotations, in the paper's order."""
        if self._present is None:
            keys = {dataset: reader.categories() if (reader := self.reader(dataset)) else [] for dataset in READERS}
            self._present = [category.id for category in CATEGORIES if category.key in keys[category.dataset]]
        return list(self._present)

    def other_categories(self, category_id: str) -> list[str]:
        """Return the categories whose photographs can be negatives: present, and another animal."""
        return other_animals(category_id, self.present_categories())

    def negative_images(self) -> list[Path]:
        """Return the images of the folder of negatives; empty where there is no such folder."""
        folder = self.negative_folder()
        return list(folder.images) if folder else []

    def negative_folder(self) -> NegativeFolder | None:
        """Return the folder of negatives, listed once; None where there is none with an image."""
        if not self._negatives:
            self._negatives.append(find_negatives(self.path))
        return self._negatives[0]

    def left_out(self, category_id: str) -> list[LeftOut]:
        """Return how many of a category's annotated objects are not among `records`, and why.

        Raises:
            DataError: as `records`.
        """
        reader = self._reader_of(category_id)
        return reader.left_out(BY_ID[category_id].key) if reader else []

    def records(self, category_id: str) -> tuple[AnnotatedObject, ...]:
        """Return every usable object of a category; empty where its data set is absent.

        Args:
            category_id: an id, or `NEGATIVES` for the photographs of the folder of negatives, uncropped.

        Raises:
            DataError: an annotation file cannot be understood, or there is no folder of negatives with images.
        """
        if category_id not in self._records:
            if category_id == NEGATIVES:
                found = self._negative_records()
            else:
                reader = self._reader_of(category_id)
                found = reader.records(BY_ID[category_id].key) if reader else []
            self._records[category_id] = tuple(found)
        return self._records[category_id]

    def flaws(self, category_id: str) -> list[Flaw]:
        """Return the errors in a category's annotation files that `records` ignores or stops at."""
        reader = self._reader_of(category_id)
        return reader.flaws(BY_ID[category_id].key) if reader else []

    def image_facts(self, records: Sequence[AnnotatedObject]) -> list[ImageFacts]:
        """Return what is known of each object's image; files that changed are read again."""
        return self._images.values(record.image for record in records)

    def category_facts(self, category_id: str) -> list[ImageFacts]:
        """Return what is known of the image of each of `records(category_id)`, looked up once.

        Raises:
            DataError: as `records`.
        """
        if category_id not in self._facts:
            self._facts[category_id] = self.image_facts(self.records(category_id))
        return self._facts[category_id]

    def usable_count(self, category_id: str) -> int:
        """Return how many objects of a category have a readable image.

        Raises:
            DataError: as `records`.
        """
        return sum(facts.is_readable for facts in self.category_facts(category_id))

    def category_digest(self, category_id: str) -> str:
        """Return the digest of a category's annotation files, and of the names and contents of its images.

        Args:
            category_id: an id, or `NEGATIVES`.

        Raises:
            DataError: as `records`.
        """
        if category_id not in self._digests:
            images = records_digest(self.records(category_id), self.category_facts(category_id))
            if category_id == NEGATIVES:
                self._digests[category_id] = images
            else:
                reader = self._reader_of(category_id)
                files = reader.annotation_files(BY_ID[category_id].key) if reader else []
                self._digests[category_id] = combine([category_id, *self._annotation_digests.values(files), images])
        return self._digests[category_id]

    def _reader_of(self, category_id: str) -> DatasetReader | None:
        return self.reader(BY_ID[category_id].dataset)

    def _negative_records(self) -> list[AnnotatedObject]:
        images = self.negative_images()
        if not images:
            raise DataError(
                f"`data.negatives` is 'folder', but {self.path} has no images in "
                f"{' or '.join(f'{name}/' for name in NEGATIVE_FOLDERS)}. "
                "Put photographs there (.jpg, .jpeg, .png), or set `data.negatives: other_categories`."
            )
        return [AnnotatedObject(path, "", None, {}) for path in images]
