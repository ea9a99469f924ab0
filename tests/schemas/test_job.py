"""A job is its spec: equal specs have equal keys, and a spec that contradicts itself says how to repair it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.base import did_you_mean, explain, field_paths
from schemas.errors import SpecError
from schemas.job import FileWeights, JobSpec, PretrainSpec, share_parts, shared_dumps, validated

BASE: dict[str, Any] = {
    "data": {"categories": ["voc_part/cat"], "train_per_category": 8, "test_per_category": 4},
    "model": {"backbone": "alexnet", "variant": "interpretable"},
    "filter_loss": {},
}
PRETRAIN: dict[str, Any] = {
    "source": "pretrain",
    "data": {"categories": ["voc_part/cat", "voc_part/dog"], "train_per_category": 8, "test_per_category": 4},
}


def job(**changes: Any) -> JobSpec:
    fields = {section: dict(value) for section, value in BASE.items()}
    for name, value in changes.items():
        section, _, leaf = name.partition("__")
        if leaf:
            fields[section] = {**fields.get(section, {}), leaf: value}
        else:
            fields[section] = value
    return JobSpec.model_validate(fields)


def message(**changes: Any) -> str:
    with pytest.raises(ValidationError) as error:
        job(**changes)
    return str(explain(error.value, "here", JobSpec))


# -- the key ------------------------------------------------------------------------------------------------------


def test_a_key_is_the_same_in_every_process_and_for_every_order_of_fields() -> None:
    backwards = {name: dict(reversed(section.items())) for name, section in reversed(BASE.items())}
    code = f"from schemas.job import JobSpec; print(JobSpec.model_validate({backwards!r}).key)"
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == job().key
    assert len(job().key) == 12


@pytest.mark.parametrize(
    "change",
    [
        {"data__categories": ["voc_part/dog"]}, {"data__train_per_category": 9}, {"data__digest": "x"},
        {"data__test_fraction": 0.2}, {"data__negatives_per_positive": 2.0},
        {"model__backbone": "vgg16"}, {"model__width": 0.5}, {"model__input_size": 128}, {"model__fc_width": 8},
        {"model__dropout": 0.1}, {"model__mask": False}, {"weights": {"source": "torchvision"}}, {"weights": PRETRAIN},
        {"filter_loss": None}, {"filter_loss__weight": 2.0}, {"filter_loss__schedule": "constant"},
        {"filter_loss__form": "exact"}, {"filter_loss__gradient_scope": "layer"},
        {"train": {"epochs": 3}}, {"train": {"batch_size": 3}}, {"train": {"learning_rate": 1.0}},
        {"train": {"momentum": 0.1}}, {"train": {"weight_decay": 0.1}}, {"train": {"freeze_below": "conv4"}},
        {"train": {"horizontal_flip": False}}, {"train": {"max_grad_norm": 1.0}}, {"train": {"decay_epochs": 2}},
        {"train": {"bias_lr_multiplier": 5}}, {"train": {"new_bias_lr_multiplier": 2}},
        {"evaluation": {"split": "all"}}, {"evaluation": {"top_images": 3}}, {"seed": 1}, {"recipe": 99},
        {"evaluation": {"part_regions": "bilinear"}}, {"evaluation": {"round_radius": 0.2}},
        {"evaluation": {"valid_share": 0.02}},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_decides_the_result_changes_the_key(change: dict[str, Any]) -> None:
    assert job(**change).key != job().key


def test_keys_are_pinned() -> None:
    """A failure means that finished jobs would run again: raise `RECIPE_VERSION` if that is intended."""
    assert (job().key, job(weights=PRETRAIN).key) == ("45deaca3856f", "2a318b0ea452")


def test_stating_a_default_does_not_change_the_key() -> None:
    assert job(seed=0, train={"momentum": 0.9}, evaluation={"split": "test"}).key == job().key


def test_how_often_a_job_is_saved_does_not_change_its_key() -> None:
    assert job(train={"epochs": 9, "checkpoint_every": 4}).key == job(train={"epochs": 9}).key
    assert job(train={"epochs": 9, "checkpoint_every_steps": 40}).key == job(train={"epochs": 9}).key


def test_a_weights_file_counts_by_content_where_that_is_known() -> None:
    def key(path: str, sha256: str) -> str:
        return job(weights={"source": "file", "path": path, "sha256": sha256}).key

    assert key("a.pt", "11") == key("b.pt", "11") != key("a.pt", "22")
    assert key("a.pt", "") != key("b.pt", "")


def test_a_change_upstream_changes_the_keys_below() -> None:
    assert job(weights=PRETRAIN).key != job(weights={**PRETRAIN, "epochs": 9}).key
    assert job(weights=PRETRAIN).upstream != job(weights={**PRETRAIN, "epochs": 9}).upstream


def test_variants_seeds_and_evaluations_of_a_job_start_from_one_upstream_job() -> None:
    ordinary = job(model__variant="ordinary", filter_loss=None, weights=PRETRAIN)
    unmasked, seeded = job(model__mask=False, weights=PRETRAIN), job(seed=3, weights=PRETRAIN)
    measured = job(evaluation={"split": "all", "top_images": 7}, weights=PRETRAIN)
    upstream = [j.upstream for j in (ordinary, unmasked, seeded, measured)]
    assert len({up.key for up in upstream if up is not None}) == 1
    assert upstream[0] is not None
    assert (upstream[0].n_outputs, upstream[0].loss, upstream[0].model.variant) == (2, "softmax", "ordinary")
    assert upstream[0].upstream is None


def test_a_changed_copy_has_a_key_of_its_own() -> None:
    first = job()
    known = first.key
    assert first.model_copy(update={"seed": 5}).key == job(seed=5).key != known
    assert (first.key, first.model_copy().key) == (known, known)


def test_a_round_trip_through_json_keeps_the_key() -> None:
    spec = job(weights=PRETRAIN)
    assert JobSpec.model_validate_json(spec.model_dump_json()).key == spec.key
    assert isinstance(spec.weights, PretrainSpec)
    assert not isinstance(spec.weights, FileWeights)


def test_a_seeded_split_makes_another_job_and_an_unused_seed_is_refused() -> None:
    photographs = {"data__images": "photographs"}
    even, first, second = (
        job(**photographs),
        job(**photographs, data__split="seeded"),
        job(**photographs, data__split="seeded", data__split_seed=1),
    )
    assert len({even.key, first.key, second.key}) == 3
    assert (first.title, second.title) == (f"{even.title} split 0", f"{even.title} split 1")
    with pytest.raises(ValidationError, match=r"`data\.split` is 'even', which has no seed"):
        job(**photographs, data__split_seed=1)
    with pytest.raises(ValidationError, match=r"`data\.split` is 'seeded' but `data\.images` is 'generated'"):
        job(data__split="seeded")


def test_the_title_is_what_a_person_calls_it() -> None:
    assert job().title == "voc-cat alexnet interpretable"
    assert job(seed=2).title == "voc-cat alexnet interpretable seed 2"
    two = {"data__categories": ["voc_part/cat", "voc_part/dog"]}
    steady = job(**two, filter_loss={"assignment": "steady"})
    assert steady.title == "2 voc categories logistic alexnet interpretable"
    assert job(**two).title == f"{steady.title} (assignment running)"
    mixed = job(data__categories=["voc_part/cat", "cub200/bird"], loss="softmax", filter_loss={"assignment": "steady"})
    assert mixed.title == "2 categories softmax alexnet interpretable"


@pytest.mark.parametrize(
    ("changes", "departs"),
    [
        ({"filter_loss": None}, "mask alone"),
        ({"filter_loss": None, "model__mask": False}, "neither mask nor loss"),
        ({"model__mask": False}, "loss alone"),
        ({"filter_loss__weight": 0.5, "filter_loss__form": "exact"}, "form exact, weight 0.5"),
        ({"model__mask": False, "filter_loss__gradient_scope": "layer"}, "loss alone, gradient_scope layer"),
    ],
)
def test_the_title_tells_the_rows_of_an_ablation_apart(changes: dict[str, Any], departs: str) -> None:
    assert job(**changes).title == f"voc-cat alexnet interpretable ({departs})"


# -- messages that teach ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model__backbone": "vgg17"}, "must be 'alexnet', 'vgg_m', 'vgg_s', 'vgg16' or 'alexnet_2012'"),
        (
            {"model__variant": "ordinary"},
            "Remove `filter_loss` for the baseline, or set `model.variant: interpretable`",
        ),
        ({"model__variant": "ordinary", "filter_loss": None, "model__mask": False}, "which has no mask"),
        ({"data__categories": []}, "Name at least one, such as `voc_part/cat`"),
        ({"data__categories": ["voc_part/cta"]}, "Did you mean 'voc_part/cat'"),
        ({"data__categories": ["voc_part/cat"] * 2}, "names a category twice"),
        ({"data__train_per_category": None}, "set `data.train_per_category`"),
        ({"data__negatives": "folder"}, "set `data.negatives: other_categories`"),
        ({"data__split": "official"}, "exists for cub200 only"),
        ({"loss": "softmax"}, "set `loss: logistic`"),
        (
            {"weights": {"source": "pretrain", "data": {"categories": ["voc_part/cat"], "images": "photographs"}}},
            "pre-training tells several kinds apart",
        ),
        ({"train": {"batch_size": 1}}, "`train.batch_size` is 1"),
        ({"train": {"epoch": 1}}, "unknown field `train.epoch`. Did you mean 'train.epochs'"),
        ({"weights": {"source": "file"}}, "required"),
        ({"weights": {"source": "web"}}, "web"),
    ],
    ids=str,
)
def test_a_spec_that_cannot_be_used_says_why_and_what_to_do(change: dict[str, Any], says: str) -> None:
    assert says in message(**change)


def test_a_spec_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        job().seed = 1  # type: ignore[misc]


def test_field_paths_reach_every_kind_of_weights() -> None:
    paths = field_paths(JobSpec)
    assert {"seed", "train.epochs", "weights.data.categories", "weights.path", "filter_loss.weight"} <= set(paths)
    assert len(paths) == len(set(paths))


def test_a_wrong_name_gets_the_nearest_or_the_whole_list() -> None:
    assert did_you_mean("vgg61", ["alexnet", "vgg16"]) == "Did you mean 'vgg16'? Valid: alexnet, vgg16."
    assert did_you_mean("zzz", ["a", "b"]) == "Valid: a, b."
    assert did_you_mean("x", [str(i) for i in range(20)]).endswith("... (20 in all).")


def test_explain_names_the_place() -> None:
    with pytest.raises(ValidationError) as error:
        JobSpec.model_validate({})
    explained = explain(error.value, "my.yaml", JobSpec)
    assert isinstance(explained, SpecError)
    assert str(explained).startswith("my.yaml: `data` is required")


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("train", "clip_gradient", "max_grad_norm"),
        ("train", "mirror", "horizontal_flip"),
        ("train", "faster_biases", "bias_lr_multiplier"),
        ("filter_loss", "reach", "gradient_scope"),
        ("filter_loss", "sharpness", "logit_scale"),
    ],
)
def test_a_field_under_its_old_name_is_refused_with_its_new_one(section: str, old: str, new: str) -> None:
    assert f"{section}.{new}" in field_paths(JobSpec)
    assert (
        message(**{f"{section}__{old}": 1})
        == f"here: unknown field `{section}.{old}`. It is now called `{section}.{new}`."
    )


# -- many specs -------------------------------------------------------------------------------------------------------


def test_sharing_equal_parts_changes_no_spec() -> None:
    jobs = [job(seed=0), job(seed=1), job(seed=1, data__digest="x"), job(weights=PRETRAIN)]
    before = [(one.key, one.model_dump_json()) for one in jobs]
    share_parts(jobs)
    assert [(one.key, one.model_dump_json()) for one in jobs] == before
    assert [JobSpec.model_validate_json(text).key for _, text in before] == [key for key, _ in before]
    assert jobs[0].data is jobs[1].data is jobs[3].data
    assert jobs[0].model is jobs[2].model
    assert jobs[1].data != jobs[2].data


def test_specs_are_dumped_and_validated_with_their_shared_parts() -> None:
    jobs = [job(seed=0), job(seed=1), job(filter_loss=None), job(weights=PRETRAIN)]
    share_parts(jobs)
    fields = shared_dumps(jobs)
    assert list(fields) == [one.model_dump(mode="json") for one in jobs]
    assert list(map(list, fields)) == [list(one.model_dump(mode="json")) for one in jobs]
    assert fields[0]["data"] is fields[3]["data"]
    again = validated(fields)
    assert list(again) == jobs
    assert again[0].data is again[3].data
    wrong = {**fields[1], "data": {**fields[1]["data"], "categories": []}}
    with pytest.raises(ValidationError):
        validated([fields[0], wrong])
