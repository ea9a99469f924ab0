"""Decides which pictures a job trains on, is tested on and is measured on; their arrays are shared by all jobs.

Legend: N pictures of a split, B of a batch, S side of the square, K landmarks, 2 is (row, column); `...` stands for
(S, S, 3) of pictures and (S, S) of part maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.categories import BY_ID, Category
from schemas.errors import DataError
from schemas.job import DataSpec, EvaluationSpec
from schemas.order import ReportPhase
from workers.data.animal_source import Animals
from workers.data.checks import check_data, data_digest, generated_digest
from workers.data.everything import everything_of
from workers.data.photograph_source import Photographs
from workers.data.pictures import Picture, Sides
from workers.data.prepared.image_sets import ImageSet
from workers.data.pushed.pulling import SharedData, open_root
from workers.data.readers.species import label_names
from workers.data.split import copies, copy_counts

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
    mirrored_N: NDArray[np.bool_] | None = None
    """Which of them are flipped left to right; None flips none."""

    def take(self, index_B: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return copies of some rows, (B, ...)."""
        taken = np.asarray(index_B, dtype=np.int64)
        rows_B = np.empty((len(taken), *self.sources[0].shape[1:]), dtype=np.uint8)
        for b, n in enumerate(taken):
            row = self.sources[self.source_N[n]][self.row_N[n]]
            rows_B[b] = row[:, ::-1] if self.mirrored_N is not None and self.mirrored_N[n] else row
        return rows_B


@dataclass(frozen=True, eq=False)
class Split:
    """The pictures of one side of a split, with labels and landmarks."""

    labels_N: NDArray[np.int64]
    """Single-category jobs: 1 for the target, 0 for negatives. Otherwise an index into `data.categories`."""
    categories_N: NDArray[np.int64]
    """Index into `JobData.category_names`."""
    landmarks_NK2: NDArray[np.float32]
    """Pixel indices of the square input; NaN where a landmark is hidden, outside, or not one of the category's. Of data
    without landmarks there is one column of NaN, so that measures have no value as if no image showed a landmark."""
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
    categories: tuple[Category, ...]
    """Those of `data.categories`, with their landmarks and parts."""
    landmark_names: tuple[str, ...]
    """Landmarks of all categories, in the order of `Split.landmarks_NK2`; empty if the data have none."""
    digest: str
    generated: bool
    skipped: tuple[str, ...]
    """Names of photographs that could not be read."""
    held_out_N: NDArray[np.bool_] | None = None
    """Which measured images the job does not train on; None if it trains on none of them."""


def load_job_data(
    data: DataSpec,
    evaluation: EvaluationSpec,
    *,
    input_size: int,
    seed: int,
    cache_dir: Path,
    data_root: Path | None,
    on_progress: ReportPhase | None = None,
    shared: SharedData | None = None,
    processes: int = 1,
) -> JobData:
    """Return the splits of a job, and prepare the images that are not prepared yet.

    Args:
        input_size: side of the network's square input, in pixels.
        seed: chooses the negatives.
        cache_dir: holds the prepared images.
        data_root: folder of the photographs; it is opened once. Not used for generated animals.
        on_progress: receives the current phase; an error that it raises ends the preparation.
        shared: where the photographs are pulled from if the data root lacks them.
        processes: number of processes that draw many generated animals.

    Raises:
        DataError: the data cannot carry the job, or changed since it was planned.
        DataAbsent: neither the data root nor `shared` has the photographs.
        StoreError: the cache cannot be written.
    """
    report = on_progress or (lambda _: None)
    root = None if data.images == "generated" else open_root(data, data_root, cache_dir, shared, report)
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
    elif root is not None and data.labels == "everything":
        data = everything_of(data, root)
    source: Animals | Photographs
    if root is None:
        source = Animals(data, input_size, seed, cache_dir, report)
        source.draw_ahead(processes)
    else:
        source = Photographs(data, input_size, seed, root, report)
    positives = [source.positives(category) for category in data.categories]
    train = [picture for sides in positives for picture in sides.train]
    test = [picture for sides in positives for picture in sides.test]
    measured = test if evaluation.split == "test" else train + test
    held_out = source.held_out() if isinstance(source, Photographs) else set()
    if data.fewest_copies or data.most_copies:
        positives = [_copied(data, sides) for sides in _without(positives, held_out)]
        train = [picture for sides in positives for picture in sides.train]
        test = [picture for sides in positives for picture in sides.test]
    if data.is_single:
        negatives = source.negatives(data.categories[0], len(train), len(test))
        train, test = train + negatives.train, test + negatives.test
    if isinstance(source, Photographs) and data.labels == "everything":
        for sides in source.unmeasured():
            train, test = train + sides.train, test + sides.test
    tested = held_out | {picture.photograph for picture in test}
    train = [picture for picture in train if picture.photograph not in tested]
    _check_sides(data, {"train on": train, "test on": test, "measure filters on": measured})
    categories = tuple(BY_ID[name] if root is None else root.category(name) for name in data.categories)
    found = _lay_out(data, categories, digest, train, test, measured)
    held_out_N = np.array([picture.photograph in tested for picture in measured])
    return found if held_out_N.all() else replace(found, held_out_N=held_out_N)


def _without(positives: list[Sides], held_out: set[str]) -> list[Sides]:
    """Leave out training pictures of photographs that are held out, so that their copies are not counted."""
    return [
        Sides([picture for picture in sides.train if picture.photograph not in held_out], sides.test)
        for sides in positives
    ]


def _copied(data: DataSpec, sides: Sides) -> Sides:
    """Return the copies of one category's pictures: mirrored and repeated, each on the side of its photograph."""
    counts = copy_counts(len(sides.train), len(sides.test), data.fewest_copies, data.most_copies, data.test_fraction)
    return Sides(
        *(
            [picture._replace(is_mirrored=mirrored) for picture, mirrored in copies(side, count)] if side else []
            for side, count in zip(sides, counts, strict=True)
        )
    )


def _check_sides(data: DataSpec, sides: Mapping[str, list[Picture]]) -> None:
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
    data: DataSpec,
    categories: tuple[Category, ...],
    digest: str,
    train: list[Picture],
    test: list[Picture],
    measured: list[Picture],
) -> JobData:
    category_names = tuple(dict.fromkeys((*data.categories, *(picture.category for picture in train + test))))
    landmark_names = tuple(dict.fromkeys(name for category in categories for name in category.landmarks))
    split = partial(_split, data=data, categories=categories, category_names=category_names)
    train_split = split(train)
    return JobData(
        train=train_split,
        test=split(test),
        measured=replace(split(measured), parts_NSS=_part_maps(measured)),
        mean_SS3=_mean(train_split),
        label_names=data.label_names or tuple(category.label for category in categories),
        category_names=category_names,
        categories=categories,
        landmark_names=landmark_names,
        digest=digest,
        generated=data.images == "generated",
        skipped=tuple(dict.fromkeys(name for picture in train + test for name in picture.set.skipped)),
    )


def _split(
    pictures: list[Picture], data: DataSpec, categories: tuple[Category, ...], category_names: tuple[str, ...]
) -> Split:
    names = list(dict.fromkeys(name for category in categories for name in category.landmarks))
    landmarks_of = {category.id: category.landmarks for category in categories}
    category_N = np.array([category_names.index(picture.category) for picture in pictures], dtype=np.int64)
    landmarks_NK2 = np.full((len(pictures), max(1, len(names)), 2), np.nan, dtype=np.float32)
    for n, picture in enumerate(pictures):
        own = landmarks_of[picture.category] if picture.is_positive else ()
        for name, (row, column) in picture.set.landmarks[picture.row].items():
            if name in own:
                shown = picture.set.pixels_N.shape[2] - 1 - column if picture.is_mirrored else column
                landmarks_NK2[n, names.index(name)] = row, shown
    return Split(
        labels_N=_labels(pictures, data, category_N),
        categories_N=category_N,
        landmarks_NK2=landmarks_NK2,
        names_N=tuple(f"{p.set.names[p.row]}{' (mirrored)' if p.is_mirrored else ''}" for p in pictures),
        images_NSS3=_rows(pictures, {picture.set.key: picture.set for picture in pictures}),
    )


def _labels(pictures: list[Picture], data: DataSpec, category_N: NDArray[np.int64]) -> NDArray[np.int64]:
    if data.is_single:
        return np.array([picture.is_positive for picture in pictures], dtype=np.int64)
    if data.labels == "categories":
        return category_N
    return np.array([data.label_names.index(picture.label) for picture in pictures], dtype=np.int64)


def _part_maps(pictures: list[Picture]) -> Rows | None:
    """Return the part maps of these pictures, or None if any of them has no masks."""
    sets: dict[str, ImageSet] = {}
    for picture in pictures:
        if picture.open_parts is None:
            return None
        if picture.set.key not in sets:
            sets[picture.set.key] = picture.open_parts()
    return _rows(pictures, sets)


def _rows(pictures: list[Picture], sets: dict[str, ImageSet]) -> Rows:
    """Return the rows of pictures in `sets`, which are keyed by the picture's set."""
    position = {key: i for i, key in enumerate(sets)}
    return Rows(
        tuple(found.pixels_N for found in sets.values()),
        np.array([position[picture.set.key] for picture in pictures], dtype=np.int64),
        np.array([picture.row for picture in pictures], dtype=np.int64),
        np.array([picture.is_mirrored for picture in pictures]) if any(p.is_mirrored for p in pictures) else None,
    )


def _mean(split: Split) -> NDArray[np.float32]:
    total = sum(
        split.take(range(start, min(start + _MEAN_BATCH, len(split)))).sum(axis=0, dtype=np.float64)
        for start in range(0, len(split), _MEAN_BATCH)
    )
    return np.asarray(total / len(split), dtype=np.float32)
