"""Which pictures a job trains on, is tested on and is measured on, as arrays shared by all jobs of the machine.

Legend: N pictures of a split, B of a batch, S side of the square, K landmarks, 2 is (row, column).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.categories import BY_ID, CATEGORIES
from schemas.errors import DataError
from schemas.job import RECIPE_VERSION, DataSpec, EvaluationSpec
from workers.data.animals import GENERATOR_VERSION
from workers.data.cache import ImageSet, Prepared, Report, open_set
from workers.data.checks import check_data, data_digest, records_digest, skip_limit, too_many_unreadable
from workers.data.crops import crop, decode
from workers.data.files import FileMemo, combine
from workers.data.records import Record
from workers.data.sources import NEGATIVES, data_root_or_error, negative_folder, other_categories, records_of
from workers.data.split import even_split, pick, share_out, take_evenly

CHUNK = 16
"""Generated animals per set: small, so that a few negatives of a category cost little to prepare."""

_MEAN_BATCH = 256


@dataclass(frozen=True, eq=False)
class Split:
    labels_N: NDArray[np.int64]
    """Single-category jobs: 1 for the target, 0 for negatives. Otherwise an index into `data.categories`."""
    categories_N: NDArray[np.int64]
    """Index into `JobData.category_names`."""
    landmarks_NK2: NDArray[np.float32]
    """Pixel indices of the square input, NaN where a landmark is hidden, outside, or not one of the category's."""
    names_N: tuple[str, ...]
    _sources: tuple[NDArray[np.uint8], ...]
    _source_N: NDArray[np.int64]
    _row_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, index_B: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Pictures as (B, S, S, 3), RGB."""
        taken = np.asarray(index_B, dtype=np.int64)
        pictures_BSS3 = np.empty((len(taken), *self._sources[0].shape[1:]), dtype=np.uint8)
        for b, n in enumerate(taken):
            pictures_BSS3[b] = self._sources[self._source_N[n]][self._row_N[n]]
        return pictures_BSS3


@dataclass(frozen=True, eq=False)
class JobData:
    train: Split
    test: Split
    measured: Split
    """The positives on which filters are measured: those of the test split, or all (`evaluation.split`)."""
    mean_SS3: NDArray[np.float32]
    """Per-pixel mean of the training split."""
    label_names: tuple[str, ...]
    """One per network output."""
    category_names: tuple[str, ...]
    """Ids: first those of `data.categories` in order, then where negatives come from."""
    landmark_names: tuple[str, ...]
    digest: str
    generated: bool
    skipped: tuple[str, ...]
    """Photographs that could not be read."""


class _Picture(NamedTuple):
    """Row `row` of a prepared set."""

    set: ImageSet
    row: int
    category: str
    is_positive: bool
    photograph: str
    """Equal for objects of one photograph."""


class _Sides(NamedTuple):
    train: list[_Picture]
    test: list[_Picture]


def load_job_data(
    data: DataSpec,
    evaluation: EvaluationSpec,
    *,
    input_size: int,
    seed: int,
    cache_dir: Path,
    data_root: Path | None,
    on_progress: Report | None = None,
) -> JobData:
    """Prepare what is not prepared yet, and lay out the job's splits. The seed chooses the negatives.

    Raises:
        DataError: the data cannot carry the job, or are not the ones it was planned with.
    """
    check_data(data, data_root, cache_dir=cache_dir)
    digest = data_digest(data, data_root, cache_dir=cache_dir)
    if data.digest and data.digest != digest:
        raise DataError(
            f"The data of {', '.join(data.categories)} changed since the sweep was planned: digest {digest} instead of "
            f"{data.digest}. Run the sweep again: the changed data make new jobs, and finished ones are kept."
        )
    report = on_progress or (lambda _: None)
    source: _Animals | _Photographs
    if data.images == "generated":
        source = _Animals(data, input_size, seed, cache_dir, report)
    else:
        source = _Photographs(data, input_size, seed, cache_dir, data_root_or_error(data_root), report)
    positives = [source.positives(category) for category in data.categories]
    train = [picture for sides in positives for picture in sides.train]
    test = [picture for sides in positives for picture in sides.test]
    measured = test if evaluation.split == "test" else train + test
    if len(data.categories) == 1:
        negatives = source.negatives(data.categories[0], len(train), len(test))
        train, test = train + negatives.train, test + negatives.test
    # A photograph may show animals of two categories, and each category is split on its own.
    tested = {picture.photograph for picture in test}
    train = [picture for picture in train if picture.photograph not in tested]
    return _lay_out(data, digest, train, test, measured)


def _lay_out(
    data: DataSpec, digest: str, train: list[_Picture], test: list[_Picture], measured: list[_Picture]
) -> JobData:
    category_names = tuple(dict.fromkeys((*data.categories, *(picture.category for picture in train + test))))
    landmark_names = tuple(dict.fromkeys(name for c in data.categories for name in BY_ID[c].landmarks))
    is_single = len(data.categories) == 1
    split = partial(_split, category_names=category_names, landmark_names=landmark_names, is_single=is_single)
    train_split = split(train)
    return JobData(
        train=train_split,
        test=split(test),
        measured=split(measured),
        mean_SS3=_mean(train_split),
        label_names=tuple(BY_ID[name].label for name in data.categories),
        category_names=category_names,
        landmark_names=landmark_names,
        digest=digest,
        generated=data.images == "generated",
        skipped=tuple(dict.fromkeys(name for picture in train + test for name in picture.set.skipped)),
    )


def _split(
    pictures: list[_Picture], category_names: tuple[str, ...], landmark_names: tuple[str, ...], is_single: bool
) -> Split:
    sets = {picture.set.key: picture.set for picture in pictures}
    position = {key: i for i, key in enumerate(sets)}
    category_N = np.array([category_names.index(picture.category) for picture in pictures], dtype=np.int64)
    landmarks_NK2 = np.full((len(pictures), len(landmark_names), 2), np.nan, dtype=np.float32)
    for n, picture in enumerate(pictures):
        own = BY_ID[picture.category].landmarks if picture.is_positive else ()
        for name, at in picture.set.landmarks[picture.row].items():
            if name in own:
                landmarks_NK2[n, landmark_names.index(name)] = at
    return Split(
        labels_N=np.array([picture.is_positive for picture in pictures], np.int64) if is_single else category_N,
        categories_N=category_N,
        landmarks_NK2=landmarks_NK2,
        names_N=tuple(picture.set.names[picture.row] for picture in pictures),
        _sources=tuple(found.images_NSS3 for found in sets.values()),
        _source_N=np.array([position[picture.set.key] for picture in pictures], dtype=np.int64),
        _row_N=np.array([picture.row for picture in pictures], dtype=np.int64),
    )


def _mean(split: Split) -> NDArray[np.float32]:
    total = sum(
        split.take(range(start, min(start + _MEAN_BATCH, len(split)))).sum(axis=0, dtype=np.float64)
        for start in range(0, len(split), _MEAN_BATCH)
    )
    return np.asarray(total / len(split), dtype=np.float32)


@dataclass(frozen=True)
class _Animals:
    """Generated animals: as many as asked for, training and test pictures from separate streams."""

    data: DataSpec
    size: int
    seed: int
    cache_dir: Path
    report: Report

    def positives(self, category: str) -> _Sides:
        # DataSpec refuses generated data without counts.
        train, test = self.data.train_per_category or 0, self.data.test_per_category or 0
        return _Sides(
            self._pictures(category, "train", range(train), is_positive=True),
            self._pictures(category, "test", range(test), is_positive=True),
        )

    def negatives(self, category: str, train: int, test: int) -> _Sides:
        others = [other.id for other in CATEGORIES if other.id != category]
        return _Sides(self._draw(others, "train", train), self._draw(others, "test", test))

    def _draw(self, others: list[str], split: str, positives: int) -> list[_Picture]:
        wanted = max(1, round(self.data.negatives_per_positive * positives))
        shares = share_out(wanted, [wanted] * len(others), self.seed)
        drawn = []
        for other, share in zip(others, shares, strict=True):
            whole_chunks = -(-share // CHUNK) * CHUNK
            drawn += self._pictures(other, split, pick(whole_chunks, share, self.seed), is_positive=False)
        return drawn

    def _pictures(self, category: str, split: str, indices: Iterable[int], *, is_positive: bool) -> list[_Picture]:
        chunks: dict[int, ImageSet] = {}
        pictures = []
        for index in indices:
            chunk = index // CHUNK
            if chunk not in chunks:
                chunks[chunk] = self._chunk(category, split, chunk)
            pictures.append(
                _Picture(chunks[chunk], index % CHUNK, category, is_positive, f"{category} {split} {index}")
            )
        return pictures

    def _chunk(self, category: str, split: str, chunk: int) -> ImageSet:
        key = f"{category.replace('/', '-')}-{split}-{chunk}-{self.size}px-v{GENERATOR_VERSION}"
        return open_set(
            self.cache_dir, key, CHUNK, self.size, lambda: self._draw_chunk(category, split, chunk), self.report
        )

    def _draw_chunk(self, category: str, split: str, chunk: int) -> Iterator[Prepared]:
        from workers.data.generated import generate  # imports cv2, which a job on prepared sets does not need

        self.report(f"drawing {BY_ID[category].label}")
        for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
            picture = generate(category, index, self.size, split=split)
            name = f"generated {BY_ID[category].label} {split} {index}"
            seen = {name: at for name, at in picture.landmarks.items() if at[0] == at[0]}
            yield Prepared(index, name, picture.image_SS3, seen)


@dataclass(frozen=True)
class _Photographs:
    """Crops of annotated objects; a category is prepared whole and split afterwards."""

    data: DataSpec
    size: int
    seed: int
    cache_dir: Path
    root: Path
    report: Report

    def positives(self, category: str) -> _Sides:
        sides = self._sides(category, records_of(category, self.root), is_positive=True)
        return _Sides(
            take_evenly(sides.train, self.data.train_per_category), take_evenly(sides.test, self.data.test_per_category)
        )

    def negatives(self, category: str, train: int, test: int) -> _Sides:
        if self.data.negatives == "folder":
            stocks = [self._sides(NEGATIVES, negative_folder(self.root), is_positive=False)]
        else:
            found = [(name, records_of(name, self.root)) for name in other_categories(category, self.root)]
            stocks = [self._sides(name, records, is_positive=False) for name, records in found if records]
        # Where the category is in the photograph too, the crop of another animal often shows some of it.
        own = {str(record.image) for record in records_of(category, self.root)}
        train_stocks, test_stocks = (
            [[picture for picture in side if picture.photograph not in own] for side in sides]
            for sides in zip(*stocks, strict=True)
        )
        return _Sides(self._draw(train_stocks, train), self._draw(test_stocks, test))

    def _draw(self, stocks: list[list[_Picture]], positives: int) -> list[_Picture]:
        wanted = max(1, round(self.data.negatives_per_positive * positives))
        shares = share_out(wanted, [len(stock) for stock in stocks], self.seed)
        return [
            stock[i] for stock, share in zip(stocks, shares, strict=True) for i in pick(len(stock), share, self.seed)
        ]

    def _sides(self, category: str, records: list[Record], *, is_positive: bool) -> _Sides:
        prepared = self._prepared(category, records)
        row_of = {item: row for row, item in enumerate(prepared.items)}
        train, test = self._split(records)
        return _Sides(
            *(
                [
                    _Picture(prepared, row_of[i], category, is_positive, str(records[i].image))
                    for i in side
                    if i in row_of
                ]
                for side in (train, test)
            )
        )

    def _split(self, records: list[Record]) -> tuple[list[int], list[int]]:
        if self.data.split == "official" and all(record.official for record in records):
            train = [i for i, record in enumerate(records) if record.official == "train"]
            return train, [i for i, record in enumerate(records) if record.official == "test"]
        return even_split([str(record.image) for record in records], self.data.test_fraction)

    def _prepared(self, category: str, records: list[Record]) -> ImageSet:
        memo = FileMemo(self.cache_dir)
        boxes = combine(f"{record.box} {sorted(record.landmarks.items())}" for record in records)
        digest = combine([records_digest(records, memo), boxes])[:16]
        key = f"{category.replace('/', '-')}-{self.size}px-{digest}-r{RECIPE_VERSION}"
        return open_set(
            self.cache_dir, key, len(records), self.size, lambda: self._crops(category, records), self.report
        )

    def _crops(self, category: str, records: list[Record]) -> Iterator[Prepared | str]:
        names = BY_ID[category].landmarks if category in BY_ID else ()
        unreadable: list[str] = []
        last: Path | None = None
        for i, record in enumerate(records):
            if i % 50 == 0:
                self.report(f"preparing {category}: {i} of {len(records)} photographs")
            if record.image != last:
                picture, last = decode(record.image), record.image
            if picture is None:
                unreadable.append(record.name)
                yield record.name
                continue
            image_SS3, landmarks_K2 = crop(picture, record, self.size, names)
            seen = {name: (float(r), float(c)) for name, (r, c) in zip(names, landmarks_K2, strict=True) if r == r}
            yield Prepared(i, record.name, image_SS3, seen)
        if len(unreadable) > skip_limit(len(records)):
            raise too_many_unreadable(category, unreadable, len(records))
