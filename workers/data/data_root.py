"""One opened folder of photographs: where its data sets are, what their annotations say, and what its images are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from schemas.base import nearest
from schemas.categories import (
    CATEGORIES,
    DATASETS,
    NEGATIVE_KEY,
    Category,
    category_of,
    is_imported,
)
from schemas.data_spec import SPECIES_OF
from schemas.errors import DataAbsent
from schemas.order import ReportPhase
from workers.data.digests import combine, content_digest, file_digest, masks_digest, records_digest
from workers.data.disk_files import brief, printable, visible_names
from workers.data.file_cache import FileCache
from workers.data.image_facts import ImageFacts, read_facts
from workers.data.readers.cub import Cub200, name_in_cub
from workers.data.readers.imported import ImportedDataset, find_imported
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import AnnotatedObject, DatasetReader, Flaw, LeftOut
from workers.data.readers.sources import (
    FURTHER_BIRDS,
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
        self.place = str(path)
        """Where the photographs are, for messages."""
        self.cache_dir = cache_dir
        self.fitting: set[str] = set()
        """Categories, or `NEGATIVES`, whose annotations `checks` found to agree with their images."""
        self._readers: dict[str, DatasetReader | None] = {}
        self._imported: dict[str, ImportedDataset] | None = None
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
        self._further: list[Cub200] | None = None
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
            DataAbsent: no path is given, it is not a folder, or no data set is in it.
        """
        if path is None:
            raise DataAbsent(
                f"Photographs need a data root, but no data root is given. Pass `--data-root FOLDER`. {layouts()}"
            )
        if not os.path.isdir(path):
            raise DataAbsent(f"The data root {path} is not a folder. Check `--data-root`. {layouts()}")
        root = cls(path, cache_dir)
        if not may_be_empty and not root.datasets():
            held = [brief(printable(name), 30) for name in visible_names(path)[:8]]
            inside = f"only {', '.join(held)}" if held else "it is empty"
            raise DataAbsent(f"The data root {path} holds no data set that can be read: {inside}. {layouts()}")
        return root

    def datasets(self) -> list[str]:
        """Return the names of the data sets that are present: the paper's, then imported ones."""
        return [name for name in (*DATASETS, *self._own()) if self.reader(name) is not None]

    def reader(self, dataset: str) -> DatasetReader | None:
        """Return the reader of a data set, or None where the data set is absent."""
        if is_imported(dataset):
            return self._own().get(dataset)
        if dataset not in self._readers:
            kind = READERS[dataset]
            folder = kind.find(self.path)
            self._readers[dataset] = None if folder is None else kind(folder, self._parsed)
        return self._readers[dataset]

    def category(self, category_id: str) -> Category:
        """Return a category with its landmarks and parts; without any for stocks of negatives."""
        found = category_of(category_id)
        own = self._own().get(found.dataset)
        return own.category(found.key) if own else found

    def folder(self, dataset: str) -> Path | None:
        """Return the folder of a data set, or None where the data set is absent."""
        reader = self.reader(dataset)
        return reader.folder if reader else None

    def present_categories(self) -> list[str]:
        """Return the ids of the categories that have annotations: in the paper's order, then imported ones."""
        if self._present is None:
            keys = {dataset: reader.categories() if (reader := self.reader(dataset)) else [] for dataset in READERS}
            self._present = [category.id for category in CATEGORIES if category.key in keys[category.dataset]]
            self._present += [f"{name}/{key}" for name, own in self._own().items() for key in own.categories()]
        return list(self._present)

    def stocks(self) -> list[str]:
        """Return everything that has photographs: the present categories, then `NEGATIVES`, `FURTHER_BIRDS` and the
        negatives of imported data sets."""
        special = [NEGATIVES] if self.negative_images() else []
        special += [FURTHER_BIRDS] if self.records(FURTHER_BIRDS) else []
        return [*self.present_categories(), *special, *self.imported_negatives()]

    def other_categories(self, category_id: str) -> list[str]:
        """Return the stocks whose photographs can be negatives: present, and another animal.

        Those of an imported category are of its data set, its negatives included. Imported photographs are no
        negatives of the paper's categories.
        """
        dataset = category_of(category_id).dataset
        if not is_imported(dataset):
            paper = [name for name in self.present_categories() if not is_imported(category_of(name).dataset)]
            return other_animals(category_id, paper)
        stocks = [*self.present_categories(), *self.imported_negatives()]
        return [name for name in stocks if category_of(name).dataset == dataset and name != category_id]

    def negative_stock(self, category_id: str) -> str:
        """Return the stock that `data.negatives: folder` means: of an imported category the negatives of its data
        set, if it has any; otherwise `NEGATIVES`."""
        own = f"{category_of(category_id).dataset}/{NEGATIVE_KEY}"
        return own if own in self.imported_negatives() else NEGATIVES

    def _own(self) -> dict[str, ImportedDataset]:
        """Readers of the imported data sets by name, found once."""
        if self._imported is None:
            self._imported = {name: ImportedDataset(folder) for name, folder in find_imported(self.path).items()}
        return self._imported

    def imported_negatives(self) -> list[str]:
        """Return the stocks of negatives of the imported data sets that have any."""
        present = dict.fromkeys(category_of(name).dataset for name in self.present_categories())
        stocks = [f"{dataset}/{NEGATIVE_KEY}" for dataset in present if is_imported(dataset)]
        return [stock for stock in stocks if self.records(stock)]

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
        return reader.left_out(category_of(category_id).key) if reader else []

    def records(self, category_id: str) -> tuple[AnnotatedObject, ...]:
        """Return every usable object of a category; empty where its data set is absent.

        Args:
            category_id: an id, or `NEGATIVES` for the photographs of the folder of negatives, uncropped, or
                `FURTHER_BIRDS`.

        Raises:
            DataError: an annotation file cannot be understood.
            DataAbsent: there is no folder of negatives with images, or no such imported data set.
        """
        if category_id not in self._records:
            if category_id == NEGATIVES:
                found = self._negative_records()
            elif category_id == FURTHER_BIRDS:
                found = self._further_records()
            else:
                reader = self._reader_of(category_id)
                found = reader.records(category_of(category_id).key) if reader else []
            self._records[category_id] = tuple(found)
        return self._records[category_id]

    def flaws(self, category_id: str) -> list[Flaw]:
        """Return the errors in a category's annotation files that `records` ignores or stops at."""
        reader = self._reader_of(category_id)
        return reader.flaws(category_of(category_id).key) if reader else []

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
            category_id: an id, `NEGATIVES`, or `FURTHER_BIRDS`.

        Raises:
            DataError: as `records`.
        """
        if category_id not in self._digests:
            images = records_digest(self.records(category_id), self.category_facts(category_id))
            if category_id == NEGATIVES:
                self._digests[category_id] = images
            elif category_id == FURTHER_BIRDS:
                read = [path for edition in self._further_editions() for path in edition.annotation_files("bird")]
                self._digests[category_id] = combine([category_id, *self._annotation_digests.values(read), images])
            else:
                reader = self._reader_of(category_id)
                files = reader.annotation_files(category_of(category_id).key) if reader else []
                self._digests[category_id] = combine([category_id, *self._annotation_digests.values(files), images])
        return self._digests[category_id]

    def content_digest(self, category_id: str) -> str:
        """Return the digest of everything that determines the prepared pictures of a category, by the files as they
        are now: images may have changed since the root was opened."""
        records = self.records(category_id)
        return content_digest(records, self.image_facts(records))

    def masks_digest(self, category_id: str) -> str:
        """Return the digest of the files of part masks of a category.

        Raises:
            OSError: a file cannot be read.
        """
        return masks_digest(self.records(category_id))

    def fetch_set(self, key: str, folder: Path, report: ReportPhase) -> bool:
        """Put a prepared set into a folder, where it need not be made from photographs.

        Returns:
            Whether it did; a root of photographs never does.
        """
        return False

    def _reader_of(self, category_id: str) -> DatasetReader | None:
        dataset = category_of(category_id).dataset
        found = self.reader(dataset)
        if found is None and is_imported(dataset):
            names = ", ".join(self._own())
            raise DataAbsent(
                f"The data root {self.place} has no data set {dataset}. {nearest(dataset, (*DATASETS, *self._own()))} "
                + (f"Imported are: {names}." if names else "`orch data import` makes one of your photographs.")
            )
        return found

    def _further_editions(self) -> list[Cub200]:
        if self._further is None:
            self._further = [Cub200(folder) for folder in Cub200.editions(self.path)[1:]]
        return self._further

    def _further_records(self) -> list[AnnotatedObject]:
        """Return the birds of further editions, those left out that an edition before has too."""
        known = {name_in_cub(record) for record in self.records(SPECIES_OF)} if self._further_editions() else set()
        found = []
        for record in (one for edition in self._further_editions() for one in edition.records("bird")):
            if (name := name_in_cub(record)) not in known:
                known.add(name)
                found.append(record)
        return found

    def _negative_records(self) -> list[AnnotatedObject]:
        images = self.negative_images()
        if not images:
            raise DataAbsent(
                f"`data.negatives` is 'folder', but {self.path} has no images in "
                f"{' or '.join(f'{name}/' for name in NEGATIVE_FOLDERS)}. "
                "Put photographs there (.jpg, .jpeg, .png), or set `data.negatives: other_categories`."
            )
        return [AnnotatedObject(path, "", None, {}) for path in images]
