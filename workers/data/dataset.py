"""Decides which pictures a job trains on, is tested on and is measured on; their arrays are shared by all jobs.

Legend: N pictures of a split, B of a batch, S side of the square, K landmarks, 2 is (row, column); `...` stands for
(S, S, 3) of pictures and (S, S) of part maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.categories import BY_ID, CATEGORIES
from schemas.errors import DataError
from schemas.job import RECIPE_VERSION, DataSpec, EvaluationSpec
from schemas.order import ReportPhase
from workers.data.checks import check_data, data_digest, generated_digest
from workers.data.data_root import DataRoot
from workers.data.generated.animals import GENERATOR_VERSION
from workers.data.prepared.image_sets import ImageSet, PreparedImage, open_set
from workers.data.prepared.photographs import have_masks, part_set, photograph_set
from workers.data.readers.records import AnnotatedObject
from workers.data.readers.sources import NEGATIVES
from workers.data.readers.species import label_names, species_label
from workers.data.split import even_split, pick, seeded_split, share_out, take_evenly

if TYPE_CHECKING:
    from workers.data.generated.generate import Generated

CHUNK = 16
"""Generated animals per set; small, so that a few negatives of a category are quick to prepare."""

_MEAN_BATCH = 256


@dataclass(frozen=True, eq=False)
class Rows:
    """Pictures or part maps, as rows of prepared sets."""

    sources: tuple[NDArray[np.uint8], ...]
    """Arrays of the prepared sets."""
    source_N: NDArray[np.int64]
    """Index into `sources`."""
    row_N: NDArray[np.int64]
    """Row in that array."""

    def take(self, index_B: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return copies of some rows, (B, ...)."""
        taken = np.asarray(index_B, dtype=np.int64)
        rows_B = np.empty((len(taken), *self.sources[0].shape[1:]), dtype=np.uint8)
        for b, n in enumerate(taken):
            rows_B[b] = self.sources[self.source_N[n]][self.row_N[n]]
        return rows_B


@dataclass(frozen=True, eq=False)
class Split:
    """The pictures of one side of a split, with labels and landmarks."""

    labels_N: NDArray[np.int64]
    """Single-category jobs: 1 for the target, 0 for negatives. Otherwise an index into `data.categories`."""
    categories_N: NDArray[np.int64]
    """Index into `JobData.category_names`."""
    landmarks_NK2: NDArray[np.float32]
    """Pixel indices of the square input; NaN where a landmark is hidden, outside, or not one of the category's."""
    names_N: tuple[str, ...]
    images_NSS3: Rows
    parts_NSS: Rows | None = None
    """Bit k is set on the pixels of the category's k-th part; annotated parts may overlap. None where the data have no
    part masks, and for splits other than `JobData.measured`."""

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, index_B: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return pictures as (B, S, S, 3), RGB."""
        return self.images_NSS3.take(index_B)


@dataclass(frozen=True, eq=False)
class JobData:
    """Everything that a job trains on, is tested on and is measured on."""

    train: Split
    test: Split
    measured: Split
    """The positives on which filters are measured: the test split's, or all (`evaluation.split`)."""
    mean_SS3: NDArray[np.float32]
    """Per-pixel mean of the training split."""
    label_names: tuple[str, ...]
    """One name per network output."""
    category_names: tuple[str, ...]
    """Ids of `data.categories` in order, followed by the sources of negatives."""
    landmark_names: tuple[str, ...]
    digest: str
    generated: bool
    skipped: tuple[str, ...]
    """Names of photographs that could not be read."""


class _Picture(NamedTuple):
    """One row of a prepared set."""

    set: ImageSet
    row: int
    category: str
    is_positive: bool
    photograph: str
    """Name of the photograph, equal for all its objects."""
    open_parts: Callable[[], ImageSet] | None
    """Opens the set with this picture's part map in the same row; None without masks."""
    label: str = ""
    """Species of a photograph, where labels are species."""


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
    on_progress: ReportPhase | None = None,
) -> JobData:
    """Return the splits of a job, and prepare the images that are not prepared yet.

    Args:
        input_size: side of the network's square input, in pixels.
        seed: chooses the negatives.
        cache_dir: holds the prepared images.
        data_root: folder of the photographs; it is opened once. Not used for generated animals.
        on_progress: receives the current phase; an error that it raises ends the preparation.

    Raises:
        DataError: the data cannot carry the job, or changed since it was planned.
        StoreError: the cache cannot be written.
    """
    root = None if data.images == "generated" else DataRoot.open(data_root, cache_dir)
    if root is None:
        digest = generated_digest()
    else:
        check_data(data, root)
        digest = data_digest(data, root)
    if data.digest and data.digest != digest:
        raise DataError(
            f"The data of {', '.join(data.categories)} changed since the sweep was planned: digest {digest} instead of "
            f"{data.digest}. Run the sweep again: the changed data make new jobs, and finished ones are kept."
        )
    if root is not None and data.labels == "species":  # a planned job has the same names: the digest determines them
        data = data.model_copy(update={"label_names": label_names(data, root.records)})
    report = on_progress or (lambda _: None)
    source: _Animals | _Photographs
    if root is None:
        source = _Animals(data, input_size, seed, cache_dir, report)
    else:
        source = _Photographs(data, input_size, seed, root, report)
    positives = [source.positives(category) for category in data.categories]
    train = [picture for sides in positives for picture in sides.train]
    test = [picture for sides in positives for picture in sides.test]
    measured = test if evaluation.split == "test" else train + test
    if data.is_single:
        negatives = source.negatives(data.categories[0], len(train), len(test))
        train, test = train + negatives.train, test + negatives.test
    # A photograph may show animals of two categories, and each category is split independently.
    tested = {picture.photograph for picture in test}
    train = [picture for picture in train if picture.photograph not in tested]
    _check_sides(data, {"train on": train, "test on": test, "measure filters on": measured})
    return _lay_out(data, digest, train, test, measured)


def _check_sides(data: DataSpec, sides: Mapping[str, list[_Picture]]) -> None:
    """Check that every side has images of every category, and negatives where accuracy needs them.

    Raises:
        DataError: a side lacks images.
    """
    for use, pictures in sides.items():
        found = {picture.category for picture in pictures if picture.is_positive}
        lacking = [f"images of {category}" for category in data.categories if category not in found]
        if data.is_single and use != "measure filters on" and all(picture.is_positive for picture in pictures):
            lacking.append("negatives")
        if lacking:
            raise DataError(
                f"`data.split: {data.split}` leaves no {', no '.join(lacking)} to {use}. "
                "Choose another split (`even`, or `seeded` with another `data.split_seed`), or add photographs."
            )


def _lay_out(
    data: DataSpec, digest: str, train: list[_Picture], test: list[_Picture], measured: list[_Picture]
) -> JobData:
    category_names = tuple(dict.fromkeys((*data.categories, *(picture.category for picture in train + test))))
    landmark_names = tuple(dict.fromkeys(name for c in data.categories for name in BY_ID[c].landmarks))
    split = partial(_split, data=data, category_names=category_names, landmark_names=landmark_names)
    train_split = split(train)
    return JobData(
        train=train_split,
        test=split(test),
        measured=replace(split(measured), parts_NSS=_part_maps(measured)),
        mean_SS3=_mean(train_split),
        label_names=data.label_names or tuple(BY_ID[name].label for name in data.categories),
        category_names=category_names,
        landmark_names=landmark_names,
        digest=digest,
        generated=data.images == "generated",
        skipped=tuple(dict.fromkeys(name for picture in train + test for name in picture.set.skipped)),
    )


def _split(
    pictures: list[_Picture], data: DataSpec, category_names: tuple[str, ...], landmark_names: tuple[str, ...]
) -> Split:
    category_N = np.array([category_names.index(picture.category) for picture in pictures], dtype=np.int64)
    landmarks_NK2 = np.full((len(pictures), len(landmark_names), 2), np.nan, dtype=np.float32)
    for n, picture in enumerate(pictures):
        own = BY_ID[picture.category].landmarks if picture.is_positive else ()
        for name, at in picture.set.landmarks[picture.row].items():
            if name in own:
                landmarks_NK2[n, landmark_names.index(name)] = at
    return Split(
        labels_N=_labels(pictures, data, category_N),
        categories_N=category_N,
        landmarks_NK2=landmarks_NK2,
        names_N=tuple(picture.set.names[picture.row] for picture in pictures),
        images_NSS3=_rows(pictures, {picture.set.key: picture.set for picture in pictures}),
    )


def _labels(pictures: list[_Picture], data: DataSpec, category_N: NDArray[np.int64]) -> NDArray[np.int64]:
    if data.is_single:
        return np.array([picture.is_positive for picture in pictures], dtype=np.int64)
    if data.labels == "categories":
        return category_N
    return np.array([data.label_names.index(picture.label) for picture in pictures], dtype=np.int64)


def _part_maps(pictures: list[_Picture]) -> Rows | None:
    """Return the part maps of these pictures, or None if any of them has no masks."""
    sets: dict[str, ImageSet] = {}
    for picture in pictures:
        if picture.open_parts is None:
            return None
        if picture.set.key not in sets:
            sets[picture.set.key] = picture.open_parts()
    return _rows(pictures, sets)


def _rows(pictures: list[_Picture], sets: dict[str, ImageSet]) -> Rows:
    """Return the rows of pictures in `sets`, which are keyed by the picture's set."""
    position = {key: i for i, key in enumerate(sets)}
    return Rows(
        tuple(found.pixels_N for found in sets.values()),
        np.array([position[picture.set.key] for picture in pictures], dtype=np.int64),
        np.array([picture.row for picture in pictures], dtype=np.int64),
    )


def _mean(split: Split) -> NDArray[np.float32]:
    total = sum(
        split.take(range(start, min(start + _MEAN_BATCH, len(split)))).sum(axis=0, dtype=np.float64)
        for start in range(0, len(split), _MEAN_BATCH)
    )
    return np.asarray(total / len(split), dtype=np.float32)


@dataclass(frozen=True)
class _Animals:
    """Source of generated animals; training and test pictures come from separate random streams."""

    data: DataSpec
    size: int
    seed: int
    cache_dir: Path
    report: ReportPhase

    def positives(self, category: str) -> _Sides:
        # DataSpec rejects generated data without counts.
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
            parts = partial(self._chunk_parts, category, split, chunk)
            pictures.append(
                _Picture(chunks[chunk], index % CHUNK, category, is_positive, f"{category} {split} {index}", parts)
            )
        return pictures

    def _chunk(self, category: str, split: str, chunk: int) -> ImageSet:
        def build(done: int) -> Iterator[PreparedImage]:
            for index, name, picture in self._draw_chunk(category, split, chunk, done):
                seen = {name: at for name, at in picture.landmarks.items() if at[0] == at[0]}
                yield PreparedImage(index, name, picture.image_SS3, seen)

        shape = (CHUNK, self.size, self.size, 3)
        return open_set(self.cache_dir, self._key(category, split, chunk), shape, build, self.report)

    def _chunk_parts(self, category: str, split: str, chunk: int) -> ImageSet:
        """Return the part maps of a chunk, drawn again for the few measured pictures instead of stored for all."""

        def build(done: int) -> Iterator[PreparedImage]:
            from workers.data.generated.generate import merge_parts

            for index, name, picture in self._draw_chunk(category, split, chunk, done):
                yield PreparedImage(index, name, merge_parts(picture.parts_SS, BY_ID[category].parts), {})

        key = f"{self._key(category, split, chunk)}-parts-r{RECIPE_VERSION}"
        return open_set(self.cache_dir, key, (CHUNK, self.size, self.size), build, self.report)

    def _key(self, category: str, split: str, chunk: int) -> str:
        return f"{category.replace('/', '-')}-{split}-{chunk}-{self.size}px-v{GENERATOR_VERSION}"

    def _draw_chunk(self, category: str, split: str, chunk: int, done: int) -> Iterator[tuple[int, str, Generated]]:
        from workers.data.generated.generate import generate

        self.report(f"drawing {BY_ID[category].label}")
        for index in range(chunk * CHUNK + done, (chunk + 1) * CHUNK):
            name = f"generated {BY_ID[category].label} {split} {index}"
            yield index, name, generate(category, index, self.size, split=split)


@dataclass(frozen=True)
class _Photographs:
    """Source of crops of annotated objects; a whole category is prepared and then split."""

    data: DataSpec
    size: int
    seed: int
    root: DataRoot
    report: ReportPhase

    def positives(self, category: str) -> _Sides:
        sides = self._sides(category, is_positive=True)
        return _Sides(
            take_evenly(sides.train, self.data.train_per_category), take_evenly(sides.test, self.data.test_per_category)
        )

    def negatives(self, category: str, train: int, test: int) -> _Sides:
        if self.data.negatives == "folder":
            stocks = [self._sides(NEGATIVES, is_positive=False)]
        else:
            others = [name for name in self.root.other_categories(category) if self.root.records(name)]
            stocks = [self._sides(name, is_positive=False) for name in others]
        # In a photograph that also shows the category, the crop of another animal often shows some of it.
        own = {record.photograph for record in self.root.records(category)}
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

    def _sides(self, category: str, *, is_positive: bool) -> _Sides:
        records = self.root.records(category)
        prepared = photograph_set(self.root, category, self.size, self.report)
        row_of = {item: row for row, item in enumerate(prepared.items)}
        has_masks = is_positive and have_masks(records)
        parts = partial(part_set, self.root, category, prepared, self.report)
        open_parts = parts if has_masks else None
        train, test = self._split(records)
        return _Sides(
            *(
                [
                    _Picture(
                        prepared,
                        row_of[i],
                        category,
                        is_positive,
                        records[i].photograph,
                        open_parts,
                        species_label(category, records[i]),
                    )
                    for i in side
                    if i in row_of
                ]
                for side in (train, test)
            )
        )

    def _split(self, records: Sequence[AnnotatedObject]) -> tuple[list[int], list[int]]:
        if self.data.split == "official" and all(record.official for record in records):
            train = [i for i, record in enumerate(records) if record.official == "train"]
            return train, [i for i, record in enumerate(records) if record.official == "test"]
        groups = [record.photograph for record in records]
        if self.data.split == "seeded":
            return seeded_split(groups, self.data.test_fraction, self.data.split_seed)
        return even_split(groups, self.data.test_fraction)
