"""Planning the jobs of a sweep."""

from __future__ import annotations

import time
from typing import Any

import pytest

from orchestrator.planning.planner import NullResolver, plan
from orchestrator.planning.request import SweepRequest, define
from schemas.errors import SpecError
from schemas.grids import GRIDS
from schemas.job import FileWeights, FilterLossSpec, PretrainSpec, RandomWeights
from schemas.profiles import PROFILES
from schemas.sweep import SweepSpec
from tests.support.doubles import Plan

ONE = {
    "base": {"category": "voc_part/cat", "backbone": "alexnet", "variant": "interpretable"},
    "profile": "laptop",
}


def wanted(sweep: Any) -> list[Any]:
    return [job for job in sweep.jobs if job.key not in sweep.upstream_keys]


@pytest.mark.parametrize(
    ("grid", "profile", "jobs", "upstream"),
    [
        ("all-categories", "laptop", 74, 1),
        ("all-categories", "paper", 296, 2),  # torchvision has no VGG-M and VGG-S
        ("ilsvrc-animal-part", "laptop", 60, 1),
        ("voc-part", "laptop", 12, 1),
        ("cub200", "paper", 8, 2),
        ("paper-multi", "laptop", 16, 3),  # the paper has none of AlexNet
        ("voc-part-multi", "laptop", 4, 1),  # two losses, two variants
        ("voc-part-multi", "paper", 16, 2),
        ("ilsvrc-multi", "laptop", 4, 1),
        ("smoke", "laptop", 8, 2),
        ("smoke", "paper", 8, 2),
    ],
)
def test_each_grid_has_the_jobs_of_its_experiment(
    plan_grid: Plan, grid: str, profile: str, jobs: int, upstream: int
) -> None:
    sweep = plan_grid(grid, profile=profile)
    assert (len(wanted(sweep)), len(sweep.upstream_keys)) == (jobs, upstream)


def test_naming_all_backbones_overrides_the_laptops_choice(plan_grid: Plan) -> None:
    sweep = plan_grid("all-categories", backbones=("alexnet", "vgg_m", "vgg_s", "vgg16"))
    assert len(wanted(sweep)) == 296


def test_296_jobs_are_planned_well_within_a_second(plan_grid: Plan) -> None:
    started = time.perf_counter()
    plan_grid("all-categories", profile="paper")
    assert time.perf_counter() - started < 1.0


def test_upstream_jobs_come_first_and_once(plan_grid: Plan) -> None:
    sweep = plan_grid("smoke")
    positions = {job.key: i for i, job in enumerate(sweep.jobs)}
    assert len(positions) == len(sweep.jobs)
    for job in wanted(sweep):
        assert job.upstream is not None
        assert positions[job.upstream.key] < positions[job.key]


def test_the_last_axis_varies_fastest(plan_grid: Plan) -> None:
    variants = [job.model.variant for job in wanted(plan_grid("voc-part"))]
    assert variants[:4] == ["ordinary", "interpretable"] * 2


def test_a_category_name_selects_those_of_the_grid(plan_grid: Plan) -> None:
    in_voc = {job.data.categories for job in wanted(plan_grid("voc-part", categories=("cat",)))}
    in_all = {job.data.categories for job in wanted(plan_grid("all-categories", categories=("cat",)))}
    assert in_voc == {("voc_part/cat",)}
    assert in_all == {("voc_part/cat",), ("ilsvrc_animal_part/n02121808",)}


def test_a_network_of_several_categories_takes_those_that_are_named(plan_grid: Plan) -> None:
    jobs = wanted(plan_grid("voc-part-multi", categories=("sheep", "cat", "cow", "dog")))
    assert {job.data.categories for job in jobs} == {("voc_part/cat", "voc_part/cow", "voc_part/dog", "voc_part/sheep")}
    assert {job.loss for job in jobs} == {"logistic", "softmax"}


def test_a_network_of_several_categories_is_not_left_with_one(plan_grid: Plan) -> None:
    with pytest.raises(SpecError, match=r"selects only voc_part/cat\. Name a second one"):
        plan_grid("voc-part-multi", categories=("cat",))
    with pytest.raises(SpecError, match=r"has no category 'fox'\. It has: voc-bird, voc-cat"):
        plan_grid("voc-part-multi", categories=("cat", "fox"))


def test_a_category_of_the_papers_grid_leaves_out_the_networks_of_several(plan_grid: Plan) -> None:
    jobs = wanted(plan_grid("paper", profile="paper", categories=("voc-cat",)))
    assert {job.data.categories for job in jobs} == {("voc_part/cat",)}
    assert len(jobs) == 8


def test_a_data_set_of_the_papers_grid_keeps_its_networks_of_several(plan_grid: Plan) -> None:
    jobs = wanted(plan_grid("paper", profile="paper", datasets=("ilsvrc",)))
    assert sorted({len(job.data.categories) for job in jobs}) == [1, 30]
    assert len(jobs) == 30 * 8 + 4


def test_a_dataset_narrows_the_categories(plan_grid: Plan) -> None:
    jobs = wanted(plan_grid("all-categories", datasets=("cub",)))
    assert {job.data.categories for job in jobs} == {("cub200/bird",)}


def test_user_fields_lie_over_the_grid_and_the_grid_over_the_profile(plan_grid: Plan) -> None:
    job = wanted(plan_grid("smoke", sets={"train.epochs": 7}))[0]
    assert job.train.epochs == 7
    assert job.model.input_size == 64  # the grid's, not the laptop's 128
    assert (
        job.train.learning_rate == PROFILES["laptop"].base["train"]["learning_rate"]
    )  # the laptop's, which the grid leaves alone


def test_a_rule_of_the_profile_is_laid_under_the_users_fields(plan_grid: Plan) -> None:
    ruled = wanted(plan_grid("cub200", profile="paper", backbones=("vgg16",)))[0]
    own = wanted(plan_grid("cub200", profile="paper", backbones=("vgg16",), sets={"train.batch_size": 8}))[0]
    assert (ruled.train.batch_size, own.train.batch_size) == (32, 8)


def test_other_weights_replace_the_profiles_as_a_whole(plan_grid: Plan) -> None:
    sweep = plan_grid("smoke", sets={"weights": {"source": "random"}})
    assert {type(job.weights) for job in sweep.jobs} == {RandomWeights}
    assert not sweep.upstream_keys


def test_pre_training_by_species_has_an_output_for_each_that_the_disk_has(plan_grid: Plan) -> None:
    data = {"images": "photographs", "labels": "species", "categories": ["voc-cat", "cub-bird"]}
    sweep = plan_grid("smoke", sets={"weights": {"source": "pretrain", "data": data}})
    (upstream,) = {job for job in sweep.jobs if job.model.backbone == "alexnet" and job.key in sweep.upstream_keys}
    assert upstream.output_labels == ("voc-cat", "001.First", "002.Second")
    assert upstream.title == "pre-training alexnet on 2 categories by species"


def test_a_weights_file_counts_by_its_content_and_not_by_its_path(plan_grid: Plan) -> None:
    job = wanted(plan_grid("smoke", sets={"weights": {"source": "file", "path": "a.pt"}}))[0]
    assert isinstance(job.weights, FileWeights)
    assert job.weights.sha256 == "sha-of-a.pt"
    assert job.weights.label == "label of a.pt"
    elsewhere = job.weights.model_copy(update={"path": "b.pt", "label": "another name"})
    assert job.model_copy(update={"weights": elsewhere}).key == job.key


def test_changed_data_make_new_jobs_upstream_and_down(plan_grid: Plan) -> None:
    before, after = plan_grid("smoke", digest="d0"), plan_grid("smoke", digest="d1")
    assert not {job.key for job in before.jobs} & {job.key for job in after.jobs}


def test_photographs_take_the_profiles_settings_for_them_but_pretraining_stays_generated(plan_grid: Plan) -> None:
    job = wanted(plan_grid("voc-part", data_root="/somewhere"))[0]
    assert (job.data.images, job.evaluation.split) == ("photographs", "all")
    assert isinstance(job.weights, PretrainSpec)
    assert job.weights.data.images == "generated"


@pytest.mark.parametrize("profile", ["laptop", "paper"])
@pytest.mark.parametrize("backbone", ["alexnet", "vgg_m"])
def test_pre_training_on_photographs_has_no_limit_that_its_user_did_not_set(
    plan_grid: Plan, profile: str, backbone: str
) -> None:
    def limits(**more: int) -> tuple[int | None, int | None]:
        data = {"images": "photographs", "categories": ["voc_part/cat", "voc_part/dog"], **more}
        sets = {"weights": {"source": "pretrain", "data": data}}
        job = wanted(plan_grid("voc-part", profile=profile, backbones=(backbone,), data_root="/x", sets=sets))[0]
        assert job.upstream is not None
        assert job.upstream.data.images == "photographs"
        return job.upstream.data.train_per_category, job.upstream.data.test_per_category

    assert limits() == (None, None)
    assert limits(train_per_category=30) == (30, None)
    assert limits(train_per_category=240, test_per_category=20) == (240, 20)


def test_generated_animals_can_be_asked_for_in_spite_of_a_data_root(plan_grid: Plan) -> None:
    job = wanted(plan_grid("voc-part", data_root="/somewhere", sets={"data.images": "generated"}))[0]
    assert (job.data.images, job.evaluation.split) == ("generated", "test")


def test_interpretable_jobs_have_a_filter_loss_unless_it_is_null(plan_grid: Plan) -> None:
    assert wanted(plan_grid(ONE))[0].filter_loss == FilterLossSpec()
    assert wanted(plan_grid(ONE, sets={"filter_loss": None}))[0].filter_loss is None


def test_an_axis_of_the_filter_loss_leaves_one_ordinary_job(plan_grid: Plan) -> None:
    sweep = plan_grid("voc-part", categories=("cat",), sets={})
    with_axis = plan_grid({"grid": "voc-part", "axes": {"filter_loss.weight": [0.1, 1.0]}}, categories=("cat",))
    assert len(wanted(sweep)) == 2
    assert [(job.model.variant, job.filter_loss and job.filter_loss.weight) for job in wanted(with_axis)] == [
        ("ordinary", None),
        ("interpretable", 0.1),
        ("interpretable", 1.0),
    ]


@pytest.mark.parametrize("field", ["filter_loss.weight", "model.mask"])
def test_an_interpretable_only_option_on_ordinary_networks_alone_says_so(plan_grid: Plan, field: str) -> None:
    value = 0.1 if field == "filter_loss.weight" else False
    with pytest.raises(SpecError, match=r"`model\.variant` is 'ordinary'"):
        plan_grid("smoke", variants=("ordinary",), sets={field: value})


def test_pretraining_categories_may_be_named_too(plan_grid: Plan) -> None:
    job = wanted(plan_grid(ONE, sets={"weights.data.categories": ["voc-cat", "zebra"]}))[0]
    assert isinstance(job.weights, PretrainSpec)
    assert job.weights.data.categories == ("voc_part/cat", "ilsvrc_animal_part/n02391049")


def test_seeds_are_an_axis_like_any_other(plan_grid: Plan) -> None:
    assert [job.seed for job in wanted(plan_grid({**ONE, "axes": {"seed": [0, 1, 2]}}))] == [0, 1, 2]


def test_a_set_field_pins_its_axis(plan_grid: Plan) -> None:
    assert [job.seed for job in wanted(plan_grid({**ONE, "axes": {"seed": [0, 1]}}, sets={"seed": 5}))] == [5]


def test_include_adds_and_exclude_leaves_out(plan_grid: Plan) -> None:
    sweep = plan_grid(
        {
            **ONE,
            "axes": {"category": ["voc_part/cat", "voc_part/dog"], "variant": ["ordinary", "interpretable"]},
            "include": [{"category": "voc_part/cow", "train.epochs": 3}],
            "exclude": [{"category": ["voc-dog"], "variant": "ordinary"}],
        }
    )
    assert [job.title for job in wanted(sweep)] == [
        "voc-cat alexnet ordinary",
        "voc-cat alexnet interpretable",
        "voc-dog alexnet interpretable",
        "voc-cow alexnet interpretable",
    ]
    assert wanted(sweep)[-1].train.epochs == 3


@pytest.mark.parametrize(
    ("row", "left"),
    [
        ({"seed": 0}, 2),  # the default, which nobody wrote
        ({"model.mask": True}, 2),  # means nothing for ordinary jobs
        ({"filter_loss": None}, 4),  # absent is not null: the default loss is filled in
        ({"filter_loss.form": "labelled", "seed": 1}, 3),
    ],
)
def test_exclude_knows_the_fields_that_nobody_wrote(plan_grid: Plan, row: dict[str, Any], left: int) -> None:
    sweep = plan_grid({**ONE, "axes": {"variant": ["ordinary", "interpretable"], "seed": [0, 1]}, "exclude": [row]})
    assert len(wanted(sweep)) == left


def test_set_lies_over_axes_and_included_rows_too(plan_grid: Plan) -> None:
    fields = {**ONE, "include": [{"seed": 1, "train.epochs": 9}]}
    assert {job.train.epochs for job in wanted(plan_grid(fields, sets={"train.epochs": 1}))} == {1}
    jobs = wanted(plan_grid("smoke", sets={"model": {"backbone": "vgg16"}}))
    assert {job.model.backbone for job in jobs} == {"vgg16"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base": {"train": {"epochs": 5}, "train.epochs": 7}}, r"`base` sets `train\.epochs` twice"),
        ({"axes": {"backbone": ["alexnet"], "model.backbone": ["vgg16"]}}, r"`axes` sets `model\.backbone` twice"),
        ({"base": {"model": 5}}, r"`model` is a section"),
        ({"base": {"train": None}}, r"`train` is a section"),
        ({"axes": {"backbone": [["alexnet"]]}}, r"`model\.backbone` is \['alexnet'\]"),
        ({"axes": {"backbone": [{"a": 1}]}}, r"`model\.backbone` is \{'a': 1\}"),
    ],
)
def test_fields_that_would_be_lost_or_misread_are_refused(
    plan_grid: Plan, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        plan_grid({"grid": "smoke", **fields})


def test_included_jobs_obey_the_command_lines_categories(plan_grid: Plan) -> None:
    fields = {**ONE, "axes": {"category": ["voc_part/cat"]}, "include": [{"category": "voc_part/cow"}]}
    assert len(wanted(plan_grid(fields))) == 2
    assert len(wanted(plan_grid(fields, categories=("cat",)))) == 1


def test_equal_requests_have_equal_names_and_different_ones_do_not() -> None:
    def name(**options: Any) -> str:
        return define(SweepRequest(sweep=SweepSpec(grid="smoke"), **options)).name

    assert name() == name() == "smoke-laptop"
    assert name(sets={"seed": 1}) == name(sets={"seed": 1}) != name(sets={"seed": 2})
    assert name(name="first-try") == "first-try"
    assert define(SweepRequest(sweep=SweepSpec(grid="smoke"), file_stem="my sweep")).name == "my-sweep"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "laptp"}, "Did you mean 'laptop'"),
        ({"backbones": ("vgg17",)}, "alexnet, vgg_m, vgg_s, vgg16"),
        ({"variants": ("intrepretable",)}, "Did you mean 'interpretable'"),
        ({"categories": ("zbra",)}, "Did you mean 'zebra'"),
        ({"categories": ("zebra",)}, "It has: voc-cat, cub-bird"),
        ({"datasets": ("imagenet",)}, "ilsvrc_animal_part, voc_part, cub200"),
        ({"datasets": ("ilsvrc",)}, "no category of ilsvrc_animal_part"),
        ({"sets": {"train.epoch": 1}}, "Did you mean 'train.epochs'"),
        ({"sets": {"optimizer": 1}}, "Unknown field `optimizer` in `--set`"),
        ({"sets": {"train.epochs": "many"}}, "train.epochs` is 'many'"),
        ({"name": "a/b"}, "'a/b' is not a valid sweep name"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(plan_grid: Plan, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan_grid("smoke", **options)


def test_an_unknown_grid_lists_the_grids(plan_grid: Plan) -> None:
    with pytest.raises(SpecError, match=r"Did you mean 'smoke'.*all-categories"):
        plan_grid("smok")
    assert set(GRIDS) == {
        "paper", "paper-multi", "all-categories", "ilsvrc-animal-part", "voc-part", "cub200", "voc-part-multi",
        "ilsvrc-multi", "smoke", "first",
    }  # fmt: skip


def test_an_unknown_axis_names_the_nearest_field(plan_grid: Plan) -> None:
    with pytest.raises(SpecError, match=r"Unknown field `train\.epochz` in `axes`\. Did you mean 'train\.epochs'"):
        plan_grid({**ONE, "axes": {"train.epochz": [1]}})


def test_a_sweep_whose_every_job_is_excluded_says_so(plan_grid: Plan) -> None:
    with pytest.raises(SpecError, match="every job is excluded"):
        plan_grid({**ONE, "exclude": [{"backbone": "alexnet"}]})


def test_a_job_without_a_category_is_told_which_field_is_missing(plan_grid: Plan) -> None:
    with pytest.raises(SpecError, match=r"data\.categories.*required"):
        plan_grid({"base": {"backbone": "alexnet", "variant": "ordinary"}})


@pytest.mark.parametrize(
    ("axes", "titles"),
    [
        (
            {"train.learning_rate": [0.01, 0.02], "variant": ["ordinary"]},
            ["voc-cat alexnet ordinary (learning_rate 0.01)", "voc-cat alexnet ordinary (learning_rate 0.02)"],
        ),
        (
            {"train": [{"epochs": 3, "batch_size": 8}, {"epochs": 4, "batch_size": 16}], "variant": ["ordinary"]},
            ["voc-cat alexnet ordinary (epochs 3, batch_size 8)", "voc-cat alexnet ordinary (epochs 4, batch_size 16)"],
        ),
        ({"train.epochs": [3], "variant": ["ordinary"]}, ["voc-cat alexnet ordinary"]),
        (
            {
                "category": [
                    [f"voc_part/{name}" for name in ("bird", "cat", "cow", last)] for last in ("dog", "horse")
                ],
                "variant": ["ordinary"],
                "loss": ["softmax"],
            },
            [
                "4 voc categories softmax alexnet ordinary (categories voc_part/dog)",
                "4 voc categories softmax alexnet ordinary (categories voc_part/horse)",
            ],
        ),
        (
            {"seed": [0, 1], "variant": ["ordinary"]},
            ["voc-cat alexnet ordinary", "voc-cat alexnet ordinary seed 1"],
        ),
    ],
)
def test_an_axis_over_any_field_is_part_of_the_title_and_not_of_the_identity(
    axes: dict[str, Any], titles: list[str]
) -> None:
    base = {"category": "voc_part/cat", "backbone": "alexnet", "weights.source": "random"}
    request = SweepRequest(sweep=SweepSpec(name="rates", base=base, axes=axes))
    jobs = plan(define(request), NullResolver()).jobs
    assert [job.title for job in jobs] == titles
    assert [job.model_copy(update={"differs_by": ""}).key for job in jobs] == [job.key for job in jobs]


def test_pretrainings_are_told_apart_too() -> None:
    base = {"category": "voc_part/cat", "backbone": "alexnet", "variant": "ordinary"}
    axes = {"weights.epochs": [2, 3]}
    found = plan(define(SweepRequest(sweep=SweepSpec(name="s", base=base, axes=axes))), NullResolver())
    assert [job.title for job in found.jobs] == [
        "pre-training alexnet on 37 categories (epochs 2)",
        "pre-training alexnet on 37 categories (epochs 3)",
        "voc-cat alexnet ordinary (epochs 2)",
        "voc-cat alexnet ordinary (epochs 3)",
    ]


@pytest.mark.parametrize("name", ["is_pretraining", "differs_by"])
def test_what_a_title_says_is_not_for_users_to_set(plan_grid: Plan, name: str) -> None:
    with pytest.raises(SpecError, match=f"sets `{name}`, which orch writes itself"):
        plan_grid("smoke", sets={name: "x" if name == "differs_by" else True})


def test_include_rows_are_told_apart_by_what_they_set() -> None:
    rows = [
        {"category": "voc_part/cat", "backbone": "alexnet", "variant": "ordinary", "train.epochs": n} for n in (2, 3)
    ]
    base = {"weights.source": "random"}
    jobs = plan(define(SweepRequest(sweep=SweepSpec(name="rows", base=base, include=rows))), NullResolver()).jobs
    assert [job.title for job in jobs] == ["voc-cat alexnet ordinary (epochs 2)", "voc-cat alexnet ordinary (epochs 3)"]
