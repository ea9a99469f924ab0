"""Copies under the `paper` profile: the steps and the ratio of the released code, from the planned job to the batches.

Its numbers: 3,000 positives (copies and mirror images) beside 1,000 negatives, nine tenths of each for training, 50
epochs; CUB-200-2011: 5,994 birds beside 500 negatives four times.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_model.metrics.accuracy import chance_level
from orchestrator.planning.planner import NullResolver, plan
from orchestrator.planning.request import SweepRequest, define
from schemas.job import JobSpec
from schemas.sweep import SweepSpec
from tests.support.photograph_files import write_cub, write_photograph, write_voc_category
from workers.data.dataset import JobData, Split, load_job_data
from workers.data.split import copies, copy_counts, repeat
from workers.training.schedule import batches_of_epoch, flips_of_epoch

MIRRORED = " (mirrored)"
STEPS = {"alexnet": 400, "vgg_m": 950, "vgg_s": 1450, "vgg16": 5650}
"""ceil(3,600 / batch) * 50 for batches of 512, 196, 128 and 32."""
CUB_STEPS = {"alexnet": 800, "vgg_m": 2050, "vgg_s": 3150, "vgg16": 12_500}
"""ceil(7,994 / batch) * 50."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root of cats (60 objects), cows (70), birds (52), and 1,000 negatives."""
    root = tmp_path_factory.mktemp("root")
    write_voc_category(root, "cat", 30, 1)
    write_voc_category(root, "cow", 35, 2)
    write_cub(root, 52)
    first = root / "neg/0000.jpg"
    write_photograph(first, 60, 50, 1)
    for number in range(1, 1000):
        shutil.copy(first, root / f"neg/{number:04d}.jpg")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def jobs(grid: str, category: str | None = None) -> list[JobSpec]:
    """Plan the measured jobs of a grid under the `paper` profile."""
    categories = (category,) if category else ()
    request = SweepRequest(sweep=SweepSpec(grid=grid, profile="paper"), categories=categories)
    sweep = plan(define(request), NullResolver())
    return [job for job in sweep.jobs if job.key not in sweep.upstream_keys]


def load(job: JobSpec, root: Path, cache: Path) -> JobData:
    """Load a job's data at a small size, which changes no count."""
    return load_job_data(job.data, job.evaluation, input_size=48, seed=job.seed, cache_dir=cache, data_root=root)


def steps(job: JobSpec, images: int) -> int:
    """Count the batches of all epochs, as the trainer draws them."""
    epochs = range(1, job.train.epochs + 1)
    return sum(len(batches_of_epoch(images, job.train.batch_size, job.seed, epoch)) for epoch in epochs)


def positives(split: Split) -> list[str]:
    return [name for name, label in zip(split.names_N, split.labels_N, strict=True) if label == 1]


def test_single_categories_have_the_released_steps_and_three_positives_per_negative(root: Path, cache: Path) -> None:
    planned = jobs("voc-part", "cat")
    data = load(planned[0], root, cache)
    for split, expected in ((data.train, [900, 2700]), (data.test, [100, 300])):
        assert np.bincount(split.labels_N).tolist() == expected
    assert {job.model.backbone: steps(job, len(data.train)) for job in planned} == STEPS
    assert {len(load(job, root, cache).train) for job in planned} == {3600}


def test_each_positive_and_its_mirror_image_are_there_equally_often_and_negatives_once(root: Path, cache: Path) -> None:
    data = load(jobs("voc-part", "cat")[0], root, cache)
    of_object = Counter(name.removesuffix(MIRRORED) for name in positives(data.train))
    assert len(of_object) == 54  # nine tenths of the objects
    assert set(of_object.values()) == {50}
    assert sum(name.endswith(MIRRORED) for name in positives(data.train)) == 1350
    negatives = [name for name, label in zip(data.train.names_N, data.train.labels_N, strict=True) if label == 0]
    assert len(set(negatives)) == len(negatives)
    assert not any(name.endswith(MIRRORED) for name in negatives)
    assert not set(of_object) & {name.removesuffix(MIRRORED) for name in positives(data.test)}


def test_nothing_is_flipped_beside_the_mirrored_copies_and_filters_are_measured_on_each_object_once(
    root: Path, cache: Path
) -> None:
    job = jobs("voc-part", "cat")[0]
    data = load(job, root, cache)
    assert sorted(data.measured.names_N) == sorted(set(data.measured.names_N))
    assert len(data.measured) == 60
    batches = batches_of_epoch(len(data.train), job.train.batch_size, 0, 1)
    assert not any(flip_B.any() for flip_B in flips_of_epoch(batches, 0, 1, horizontal_flip=job.train.horizontal_flip))


def test_a_mirrored_copy_is_the_flipped_image_with_flipped_landmarks(root: Path, cache: Path) -> None:
    train = load(jobs("voc-part", "cat")[0], root, cache).train
    plain = train.names_N.index(positives(train)[0])
    mirrored = train.names_N.index(positives(train)[0] + MIRRORED)
    (image_SS3, flipped_SS3) = train.take([plain, mirrored])
    assert (image_SS3 != flipped_SS3).any()
    np.testing.assert_array_equal(flipped_SS3, image_SS3[:, ::-1])
    there_K2, shown_K2 = train.landmarks_NK2[plain], train.landmarks_NK2[mirrored]
    np.testing.assert_allclose(shown_K2[:, 0], there_K2[:, 0])
    np.testing.assert_allclose(shown_K2[:, 1], 47 - there_K2[:, 1])
    assert np.isfinite(there_K2).any()


def test_the_best_constant_answer_is_right_three_times_out_of_four(root: Path, cache: Path) -> None:
    import torch

    for category in ("cat", "cub200/bird"):
        grid = "voc-part" if category == "cat" else "cub200"
        test = load(jobs(grid, category)[0], root, cache).test
        assert chance_level(torch.from_numpy(test.labels_N), 1, "logistic") == pytest.approx(0.75, abs=0.01)


def test_cub_has_its_published_split_and_each_bird_once_as_it_is(root: Path, cache: Path) -> None:
    planned = jobs("cub200")
    data = load(planned[0], root, cache)
    train, test = positives(data.train), positives(data.test)
    assert (len(train), len(test)) == (26, 26)
    assert {int(name[-8:-4]) % 2 for name in train} == {1}
    assert {int(name[-8:-4]) % 2 for name in test} == {0}
    assert not any(name.endswith(MIRRORED) for name in data.train.names_N)
    assert sorted(data.measured.names_N) == sorted(test)
    assert {job.evaluation.split for job in planned} == {"test"}
    images = 5994 + round(5994 * planned[0].data.negatives_per_positive)
    assert {job.model.backbone: steps(job, images) for job in planned} == CUB_STEPS


def test_cub_repeats_500_negatives_four_times(root: Path, cache: Path) -> None:
    job = jobs("cub200")[0]
    assert round(5994 * job.data.negatives_per_positive) == 2000
    few = job.data.model_copy(update={"negatives_per_positive": 2000 / 26})  # this root has 26 birds, not 5,994
    data = load(job.model_copy(update={"data": few}), root, cache)
    for split in (data.train, data.test):
        names = Counter(name for name, label in zip(split.names_N, split.labels_N, strict=True) if label == 0)
        assert (len(names), set(names.values())) == (500, {4})


def test_networks_of_several_categories_have_at_least_1500_copies_of_each(root: Path, cache: Path) -> None:
    request = SweepRequest(sweep=SweepSpec(grid="voc-part-multi", profile="paper"), categories=("cat", "cow"))
    job = plan(define(request), NullResolver()).jobs[-1]
    data = load(job, root, cache)
    assert np.bincount(data.train.labels_N).tolist() == [1350, 1350]
    assert np.bincount(data.test.labels_N).tolist() == [150, 150]
    thirty = jobs("ilsvrc-multi")[0].data
    assert (thirty.fewest_copies, thirty.most_copies) == (100, 400)


def test_the_laptop_profile_takes_each_photograph_once(root: Path, cache: Path) -> None:
    request = SweepRequest(sweep=SweepSpec(grid="voc-part", profile="laptop"), categories=("cat",), data_root="x")
    data = load(plan(define(request), NullResolver()).jobs[-1], root, cache)
    assert len(data.train.names_N) == len(set(data.train.names_N)) == 108


@pytest.mark.parametrize(
    ("images", "fewest", "most", "expected"),
    [
        ((54, 6), 3000, 3000, (2700, 300)), ((1400, 155), 3000, 3000, (2700, 300)), ((54, 6), 100, 400, (108, 12)),
        ((300, 33), 100, 400, (360, 40)), ((20, 2), 100, 400, (90, 10)), ((900, 100), 1500, None, (1800, 200)),
        ((900, 100), None, 400, (360, 40)),
    ],
)  # fmt: skip
def test_numbers_of_copies_by_hand(
    images: tuple[int, int], fewest: int | None, most: int | None, expected: tuple[int, int]
) -> None:
    assert copy_counts(*images, fewest, most, 0.1) == expected


@settings(deadline=None)
@given(items=st.integers(1, 60), count=st.integers(1, 500))
def test_copies_are_as_many_as_asked_for_and_as_even_as_they_can_be(items: int, count: int) -> None:
    found = copies(range(items), count)
    assert len(found) == count
    each = Counter(found)
    assert max(each.values()) - min(each[item, m] for item in range(items) for m in (False, True)) <= 1
    mirrored = sum(is_mirrored for _, is_mirrored in found)
    assert count - 2 * mirrored in (0, 1)


def test_repeated_items_by_hand() -> None:
    assert copies("ab", 7) == [
        ("a", False), ("a", True), ("b", False), ("b", True), ("a", False), ("a", True), ("b", False),
    ]  # fmt: skip
    assert repeat("abc", 7) == [*"abcabcb"]
    assert repeat("abc", 2) == ["a", "c"]
    assert repeat("", 2) == []
