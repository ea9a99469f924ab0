"""Pre-training on photographs never trains on an image that a job which starts from it is tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.planner import NullResolver, plan
from orchestrator.planning.request import SweepRequest, define
from schemas.errors import SpecError
from schemas.job import DataSpec, JobSpec
from schemas.sweep import SweepSpec
from tests.support.doubles import plan_of
from tests.support.photograph_files import write_voc_category
from workers.data.checks import data_digest
from workers.data.data_root import DataRoot
from workers.data.dataset import JobData, Split, load_job_data

CAT, COW, DOG, BIRD = "voc_part/cat", "voc_part/cow", "voc_part/dog", "cub200/bird"
SPLITS: list[dict[str, Any]] = [
    {},
    {"test_fraction": 0.3},
    {"split": "even", "test_fraction": 0.2},
    {"split": "seeded"},
    {"split": "seeded", "split_seed": 5},
    {"split": "seeded", "split_seed": 7, "test_fraction": 0.4},
]
OFFICIAL: list[dict[str, Any]] = [{"split": "official"}, {"split": "official", "test_fraction": 0.5}]


def job(category: str, data: dict[str, Any], pretraining: dict[str, Any], profile: str = "laptop") -> JobSpec:
    """Plan one job as `orch sweep` does, whose pre-training classifies cats, cows and birds."""
    weights = {
        "source": "pretrain",
        "data": {"images": "photographs", "categories": [CAT, COW, BIRD], **pretraining},
    }
    base = {
        "category": category,
        "backbone": "vgg_m",
        "variant": "ordinary",
        "data": {"images": "photographs", **data},
        "weights": weights,
    }
    sweep = plan(define(SweepRequest(sweep=SweepSpec(profile=profile, base=base))), NullResolver())
    return sweep.jobs[-1]


def load(spec: JobSpec, root: Path, cache: Path) -> JobData:
    return load_job_data(spec.data, spec.evaluation, input_size=48, seed=spec.seed, cache_dir=cache, data_root=root)


def positives(split: Split) -> set[str]:
    return {name for name, label in zip(split.names_N, split.labels_N, strict=True) if label == 1}


@pytest.mark.parametrize("negatives", ["folder", "other_categories"])
@pytest.mark.parametrize(
    ("category", "data"),
    [(category, data) for category in (CAT, BIRD) for data in SPLITS] + [(BIRD, data) for data in OFFICIAL],
    ids=str,
)
def test_no_test_image_of_a_job_is_in_its_pre_training(
    data_root: Path, tmp_path: Path, category: str, data: dict[str, Any], negatives: str
) -> None:
    spec = job(category, {**data, "negatives": negatives}, {})
    assert spec.upstream is not None
    own, before = load(spec, data_root, tmp_path), load(spec.upstream, data_root, tmp_path)
    tested = set(own.test.names_N) if negatives == "other_categories" else positives(own.test)
    assert len(positives(own.test)) >= 5
    assert not tested & set(before.train.names_N)
    assert positives(own.train) <= set(before.train.names_N)  # and it does train on those of the same side


@pytest.mark.parametrize("profile", ["laptop", "paper"])
@pytest.mark.parametrize("category", [CAT, BIRD])
def test_nor_in_the_profiles_own_splits(data_root: Path, tmp_path: Path, profile: str, category: str) -> None:
    spec = job(category, {}, {}, profile)
    assert spec.upstream is not None
    own, before = load(spec, data_root, tmp_path), load(spec.upstream, data_root, tmp_path)
    assert not positives(own.test) & set(before.train.names_N)


def test_the_paper_profile_halves_the_negatives_of_birds_and_not_what_pre_training_shares_with_them(
    data_root: Path, tmp_path: Path
) -> None:
    """The released code tests 500 of its 1,000 negatives beside CUB's published test images."""
    spec = job(BIRD, {"negatives_per_positive": 1.0}, {}, "paper")  # enough to draw all of a side
    assert spec.upstream is not None
    own, before = load(spec, data_root, tmp_path), load(spec.upstream, data_root, tmp_path)
    negatives = [set(split.names_N) - positives(split) for split in (own.train, own.test)]
    assert [len(names) for names in negatives] == [25, 25]
    categories = before.train.categories_N
    of = {name: int((categories == i).sum()) for i, name in enumerate(before.category_names)}
    assert of == {CAT: 54, COW: 50, BIRD: 26}  # of 60 cats and 56 cows nine tenths, and the published half of 52 birds


def photographs(split: Split) -> set[str]:
    """Names of the files, each of which has two objects of a category."""
    return {name.partition("#")[0] for name in split.names_N}


@pytest.fixture
def shared_root(data_root: Path) -> Path:
    """Return a root in which 29 of the 30 photographs of cats also show dogs, so that the two are split differently."""
    write_voc_category(data_root, "dog", 29, 1)
    return data_root


@pytest.mark.parametrize("data", SPLITS, ids=str)
@pytest.mark.parametrize(
    "pretraining",
    [{"categories": [CAT, DOG], "test_per_category": 2}, {"categories": [CAT, DOG, COW]}, {"categories": [DOG, COW]}],
    ids=["tested in part", "tested whole", "without the category of the job"],
)
def test_nor_is_another_animal_in_a_photograph_that_the_job_is_tested_on(
    shared_root: Path, tmp_path: Path, data: dict[str, Any], pretraining: dict[str, Any]
) -> None:
    spec = job(CAT, {**data, "negatives": "folder"}, pretraining)
    assert spec.upstream is not None
    own, before = load(spec, shared_root, tmp_path), load(spec.upstream, shared_root, tmp_path)
    tested = {name.partition("#")[0] for name in positives(own.test)}
    assert not tested & photographs(before.train)
    assert len(photographs(before.train)) >= 10


def test_nor_another_animal_beside_one_of_its_negatives(shared_root: Path, tmp_path: Path) -> None:
    spec = job(COW, {"negatives": "other_categories"}, {"categories": [CAT, COW]})
    assert spec.upstream is not None
    own, before = load(spec, shared_root, tmp_path), load(spec.upstream, shared_root, tmp_path)
    dogs = own.test.categories_N == own.category_names.index(DOG)
    tested = {name.partition("#")[0] for name, is_dog in zip(own.test.names_N, dogs, strict=True) if is_dog}
    assert tested
    assert not tested & photographs(before.train)


def test_jobs_of_several_categories_still_share_a_pre_training_that_lacks_some() -> None:
    fields: dict[str, Any] = {
        "base": {
            "backbone": "alexnet",
            "variant": "ordinary",
            "data": {"images": "photographs", "negatives": "other_categories"},
            "weights": {"source": "pretrain", "data": {"images": "photographs", "categories": [COW, BIRD]}},
        },
        "axes": {"category": [CAT, COW, DOG]},
    }
    assert len(plan_of(fields).upstream_keys) == 1


def test_what_is_held_out_is_part_of_the_digest(shared_root: Path, tmp_path: Path) -> None:
    before = DataSpec(categories=(COW, BIRD), images="photographs")
    after = before.model_copy(update={"held_out_categories": (CAT,)})

    def digests() -> list[str]:
        root = DataRoot.open(shared_root, tmp_path)
        return [data_digest(data, root) for data in (before, after)]

    first = digests()
    write_voc_category(shared_root, "cat", 25, 1)
    assert digests()[0] == first[0]
    assert digests()[1] != first[1]


def test_jobs_that_used_to_hold_out_less_are_new_and_no_others(data_root: Path, tmp_path: Path) -> None:
    root = DataRoot.open(data_root, tmp_path)
    whole = DataSpec(categories=(CAT, COW), images="photographs")
    single = DataSpec(categories=(CAT,), images="photographs")
    limit = {"test_per_category": 2}
    assert data_digest(whole, root) != data_digest(whole.model_copy(update=limit), root)
    assert data_digest(single, root) == data_digest(single.model_copy(update=limit), root)


def test_another_split_than_the_job_s_would_show_it_test_images(data_root: Path, tmp_path: Path) -> None:
    """What the two tests above would find if the planner did not derive the split."""
    spec = job(CAT, {"split": "seeded", "split_seed": 5}, {})
    own = load(spec, data_root, tmp_path)
    even = DataSpec(categories=(CAT, COW, BIRD), images="photographs")
    before = load_job_data(even, spec.evaluation, input_size=48, seed=0, cache_dir=tmp_path, data_root=data_root)
    assert positives(own.test) & set(before.train.names_N)


@pytest.mark.parametrize(
    ("category", "data", "pretraining", "shown"),
    [
        (CAT, {"split": "seeded"}, {"split": "even"}, "voc_part/cat"),
        (CAT, {"split": "seeded", "split_seed": 1}, {"split": "seeded", "split_seed": 2}, "voc_part/cat"),
        (CAT, {"test_fraction": 0.2}, {"test_fraction": 0.1}, "voc_part/cat"),
        (CAT, {}, {"split": "official"}, ""),  # cats are split evenly all the same
        (BIRD, {"split": "official"}, {"split": "even"}, "cub200/bird"),
        (BIRD, {}, {"split": "official"}, "cub200/bird"),
        (BIRD, {"split": "official", "test_fraction": 0.2}, {"test_fraction": 0.1}, ""),  # decides nothing for birds
        (CAT, {"negatives": "other_categories"}, {"split": "official"}, "cub200/bird"),
    ],
    ids=str,
)
def test_a_split_of_its_own_is_refused_before_work_starts_where_it_would_leak(
    category: str, data: dict[str, Any], pretraining: dict[str, Any], shown: str
) -> None:
    data = {"negatives": "folder", **data}
    if not shown:
        job(category, data, pretraining)
        return
    with pytest.raises(SpecError, match=rf"train on test images of {shown}, .*Remove `split`"):
        job(category, data, pretraining)


def test_every_seed_of_a_split_has_its_own_pre_training_and_other_jobs_keep_theirs() -> None:
    fields: dict[str, Any] = {
        "base": {
            "category": CAT,
            "backbone": "alexnet",
            "variant": "ordinary",
            "data": {"images": "photographs", "negatives": "folder", "split": "seeded"},
            "weights": {"source": "pretrain", "data": {"images": "photographs", "categories": [CAT, COW]}},
        },
        "axes": {"data.split_seed": [0, 1, 2]},
    }
    sweep = plan_of(fields)
    assert {spec.data.split_seed for spec in sweep.jobs if spec.key in sweep.upstream_keys} == {0, 1, 2}
    generated = plan_of({**fields, "base": {**fields["base"], "weights": {"source": "pretrain"}}})
    assert len(generated.upstream_keys) == 1
