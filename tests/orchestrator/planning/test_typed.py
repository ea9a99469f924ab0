"""A value means the same wherever it is written: in axes, base, include, exclude and `--set`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.planner import plan
from orchestrator.planning.request import SweepRequest, define, find_profile, name_of_file
from orchestrator.planning.sweep_file import parse_sets, read_sweep_file
from orchestrator.planning.typed import FIELDS, FILLED_IN, TypedRule, typed_tree
from schemas.errors import SpecError
from schemas.grids import GRIDS
from schemas.job import FileWeights, JobSpec
from schemas.profiles import PROFILES
from schemas.sweep import SweepSpec
from tests.support.doubles import FixedResolver, Plan

BASE = {"category": "voc-cat", "backbone": "alexnet", "variant": "ordinary", "weights": {"source": "random"}}
CATS = ("ilsvrc_animal_part/n02121808", "voc_part/cat")
BIRDS = ("ilsvrc_animal_part/n01503061", "voc_part/bird", "cub200/bird")


def categories(sweep: Any) -> list[tuple[str, ...]]:
    return [job.data.categories for job in sweep.jobs if job.key not in sweep.upstream_keys]


VALUES: list[tuple[str, str, Any]] = [
    # field, value as typed, and the job's value; None where it is refused
    ("seed", "010", 10), ("seed", "0x10", 16), ("seed", "0o10", 8), ("seed", "+5", 5), ("seed", "-1", -1),
    ("seed", "0b1", None), ("seed", "1_000", None), ("seed", "1e3", None), ("seed", "5.", None), ("seed", "5.0", None),
    ("seed", "true", None), ("seed", "on", None), ("seed", "1:30", None), ("seed", "'5'", None), ("seed", "null", None),
    ("seed", "", None), ("seed", "{a: 1}", None), ("seed", "2026-03-01", None),
    ("seed", "\uff11", None), ("seed", "9223372036854775807", 2**63 - 1), ("seed", "9223372036854775808", None),
    ("seed", "0x" + "f" * 5000, None), ("seed", ".inf", None),
    ("train.epochs", "0", None), ("train.epochs", "-3", None), ("train.epochs", "8.5", None),
    ("train.epochs", "yes", None), ("train.epochs", "1:30", None),
    ("train.learning_rate", "1", 1.0), ("train.learning_rate", ".5", 0.5), ("train.learning_rate", "5.", 5.0),
    ("train.learning_rate", "1e-3", 0.001), ("train.learning_rate", ".5e1", 5.0),
    ("train.learning_rate", ".inf", None), ("train.learning_rate", "1e999", None),
    ("train.learning_rate", ".nan", None), ("train.learning_rate", "-1", None), ("train.learning_rate", "-0.0", None),
    ("train.learning_rate", "1e-400", None), ("train.learning_rate", "'1'", None),
    ("train.learning_rate", "true", None), ("train.learning_rate", "9" * 400, None),
    ("train.final_learning_rate", ".inf", None), ("train.max_grad_norm", ".inf", None),
    ("train.max_grad_norm", "5", 5.0), ("train.weight_decay", "-0.0", 0.0), ("train.weight_decay", "0", 0.0),
    ("train.horizontal_flip", "false", False), ("train.horizontal_flip", "FALSE", False),
    ("train.horizontal_flip", "no", None), ("train.horizontal_flip", "0", None),
    ("train.freeze_below", "conv4", "conv4"), ("train.freeze_below", "4", None),
    ("train.freeze_below", "x" * 5000, None),
    ("train.freeze_below", r'"\0"', None), ("train.freeze_below", r'"\ud800"', None),
    ("model.backbone", "AlexNet", None), ("loss", "Logistic", None), ("train", "5", None), ("weights", "random", None),
    ("weights", "{source: web}", None), ("recipe", "3", None), ("data.digest", "x", None),
]  # fmt: skip


PLACES = {
    "base": "base: {{{field}: {text}}}",
    "axes": "axes: {{{field}: [{text}]}}",
    "include": "include: [{{{field}: {text}}}]",
    "exclude": "exclude: [{{{field}: {text}}}]",
    "--set": "description: nothing",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("field", "text", "value"), VALUES, ids=lambda part: str(part)[:24])
def test_a_value_is_read_alike_in_every_place(
    plan_grid: Plan, tmp_path: Path, field: str, text: str, value: Any, place: str
) -> None:
    (tmp_path / "s.yaml").write_text(PLACES[place].format(field=field, text=text))

    def jobs() -> tuple[JobSpec, ...]:
        fields = read_sweep_file(tmp_path / "s.yaml").model_dump(exclude_unset=True)
        fields["base"] = {**BASE, "train.max_grad_norm": 77} | fields.get("base", {})
        return plan_grid(fields, sets=parse_sets([f"{field}={text}"]) if place == "--set" else None).jobs

    if value is None:
        with pytest.raises(SpecError) as refused:
            jobs()
        assert "\n" not in str(refused.value)
    elif place == "exclude":
        assert jobs()  # nothing is refused
    else:
        found = _value_of(jobs()[-1], field)
        assert (found, type(found)) == (value, type(value))


def _value_of(job: JobSpec, field: str) -> Any:
    value: Any = job
    for part in field.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"base": {**BASE, "category": "cat"}}, [(id_,) for id_ in CATS]),
        ({"base": {**BASE, "category": "cat"}, "axes": {"seed": [0, 1]}}, [(id_,) for id_ in CATS for _ in range(2)]),
        ({"base": BASE, "axes": {"category": ["cat"]}}, [(id_,) for id_ in CATS]),
        ({"include": [{**BASE, "category": "cat"}, {**BASE, "category": "bird"}]}, [(id_,) for id_ in (*CATS, *BIRDS)]),
        (
            {"base": {"backbone": "alexnet", "category": "cat"}, "include": [{"variant": "ordinary"}]},
            [(id_,) for id_ in CATS],
        ),
        (
            {"base": {**BASE, "category": "voc-dog"}, "axes": {"data": [{"categories": "cat"}]}},
            [(id_,) for id_ in CATS],
        ),
        ({"base": {**BASE, "category": ["voc-cat", "voc-dog"]}}, [("voc_part/cat", "voc_part/dog")]),
        ({"base": BASE, "axes": {"category": ["voc-cat", "VOC-CAT", "voc_part/cat"]}}, [("voc_part/cat",)]),
    ],
)
def test_a_word_for_several_categories_is_a_job_for_each(
    plan_grid: Plan, fields: dict[str, Any], expected: list[tuple[str, ...]]
) -> None:
    assert categories(plan_grid(fields)) == expected


def test_a_word_on_the_command_line_is_that_of_the_file(plan_grid: Plan) -> None:
    fields = {"base": {**BASE, "category": "cat"}}
    assert categories(plan_grid(fields, sets={"category": "bird"})) == [(id_,) for id_ in BIRDS]
    assert categories(plan_grid(fields, categories=("voc-cat",))) == [("voc_part/cat",)]
    assert categories(plan_grid({"include": [{**BASE, "category": "cat"}]}, categories=("voc-cat",))) == [
        ("voc_part/cat",)
    ]
    with pytest.raises(SpecError, match=r"no category 'dog'\. It has: ilsvrc-cat, voc-cat"):
        plan_grid(fields, categories=("dog",))


@pytest.mark.parametrize(
    "fields",
    [
        {"base": {**BASE, "category": ["cat"]}},
        {"base": BASE, "axes": {"category": [["cat", "voc-dog"]]}},
        {"include": [{**BASE, "category": ["cat"]}]},
        {"base": {**BASE, "weights": {"source": "pretrain", "data.categories": "cat"}}},
    ],
)
def test_a_network_of_several_categories_names_each_of_them(plan_grid: Plan, fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"'cat' stands for several: ilsvrc_animal_part/n02121808, voc_part/cat"):
        plan_grid(fields)


@pytest.mark.parametrize("word", [5, True, None, ["voc-cat", None], {"a": 1}, "on", ""])
def test_what_is_no_category_is_refused(plan_grid: Plan, word: Any) -> None:
    for fields in ({"base": {**BASE, "category": word}}, {"base": BASE, "axes": {"category": [word]}},
                   {"base": BASE, "exclude": [{"category": word}]}):  # fmt: skip
        with pytest.raises(SpecError, match=r"not a category|No category is called|Unknown field"):
            plan_grid(fields)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"variant": "interpretible"}, r"`exclude` row 1: `model\.variant` is 'interpretible'.*Did you mean 'interp"),
        ({"backbone": "AlexNet"}, "Did you mean 'alexnet'"),
        ({"backbone": ["alexnet", "vgg-16"]}, "Did you mean 'vgg16'"),
        ({"category": "zbra"}, "Did you mean 'zebra'"),
        ({"category": []}, "is an empty list, which matches nothing"),
        ({"seed": "0"}, "`seed` is '0'"),
        ({"seed": [0, True]}, "`seed` is True"),
        ({"train": 5}, "`train` is a section"),
        ({"sede": 0}, "Did you mean 'seed'"),
        ({"variant": "ordinary", "model": {"variant": "ordinary"}}, "twice, under two spellings"),
        ({}, "row 1 is empty, so it would leave out every job"),
    ],
)
def test_an_exclude_row_is_checked_like_an_axis(plan_grid: Plan, row: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan_grid({"base": BASE, "axes": {"seed": [0, 1]}, "exclude": [row]})


def test_exclude_rows_that_match_nothing_are_reported(plan_grid: Plan) -> None:
    rows = [
        {"variant": "interpretable"},
        {"seed": 0},
        {"seed": 0, "train.momentum": 0.9},  # a default, of a job that the row before leaves out
        {"weights.source": "file"},
        {"train.weight_decay": [-0.0, 1]},
    ]
    sweep = plan_grid({"base": BASE, "axes": {"seed": [0, 1], "train.weight_decay": [0.0, 5e-4]}, "exclude": rows})
    assert [job.title for job in sweep.jobs] == ["voc-cat alexnet ordinary seed 1"]
    assert sweep.warnings == (
        "`exclude` row 1 (variant: 'interpretable') matches no job of this sweep.",
        "`exclude` row 4 (weights.source: 'file') matches no job of this sweep.",
    )


def test_axes_over_sections_and_their_fields(plan_grid: Plan) -> None:
    trained = plan_grid({"base": BASE, "axes": {"train": [{"epochs": 1}, {"epochs": 2}]}}).jobs
    assert [job.train.epochs for job in trained] == [1, 2]
    weights = [{"source": "random"}, {"source": "torchvision"}]
    assert len(plan_grid({"base": BASE, "axes": {"weights": weights}}).jobs) == 2
    with pytest.raises(SpecError, match=r"`axes` sets both `train` and `train\.epochs`"):
        plan_grid({"base": BASE, "axes": {"train": [{"epochs": 1}], "train.epochs": [2]}})
    with pytest.raises(SpecError, match="`train` is a section"):
        plan_grid({"base": BASE, "axes": {"train": [1]}})


def test_values_of_an_axis_that_are_one_value_make_one_job(plan_grid: Plan) -> None:
    axes = {"train.weight_decay": [0.0, -0.0, 0], "train.max_grad_norm": [5, 5.0], "seed": [1, 1]}
    assert len(plan_grid({"base": BASE, "axes": axes}).jobs) == 1


def test_paths_begin_at_the_file_or_at_the_folder_of_the_command(tmp_path: Path) -> None:
    def path_of(fields: dict[str, Any], sets: dict[str, Any] | None = None) -> str:
        request = SweepRequest(
            sweep=SweepSpec.model_validate(fields), sets=sets, folder=tmp_path / "sweeps", set_folder=tmp_path / "here"
        )
        (job,) = plan(define(request), FixedResolver()).jobs
        assert isinstance(job.weights, FileWeights)
        return job.weights.path

    file = {"source": "file", "path": "w.pth"}
    in_file = str(tmp_path / "sweeps" / "w.pth")
    assert path_of({"base": {**BASE, "weights": file}}) == in_file
    assert path_of({"base": {**BASE, "weights": {"source": "file"}}, "axes": {"weights.path": ["w.pth"]}}) == in_file
    assert path_of({"base": BASE, "axes": {"weights": [file]}}) == in_file
    assert path_of({"include": [{**BASE, "weights": file}]}) == in_file
    assert path_of({"base": BASE}, {"weights": file}) == str(tmp_path / "here" / "w.pth")
    assert path_of({"base": BASE}, {"weights": {"source": "file", "path": "/w.pth"}}) == "/w.pth"
    assert path_of({"base": BASE}, {"weights": {"source": "file", "path": "~/w.pth"}}) == str(Path.home() / "w.pth")
    with pytest.raises(SpecError, match="no such home folder"):
        path_of({"base": BASE}, {"weights": {"source": "file", "path": "~nobody-here/w.pth"}})


def test_built_in_grids_and_profiles_are_typed() -> None:
    for grid in GRIDS.values():
        typed_tree(grid.base, grid.name or "")
    for name in PROFILES:
        profile = find_profile(name)
        typed_tree(profile.base, name)
        typed_tree(profile.photographs, name)
        assert [TypedRule.of(rule, name) for rule in profile.rules]
    assert {"recipe", "data.digest", "weights.sha256", "weights.data.label_names"} <= FILLED_IN <= set(FIELDS)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("mine", "mine"), ("my sweep", "my-sweep"), ("a.b_c-1", "a.b_c-1"), ("010", "010"), ("a" * 80, "a" * 80),
        ("実験", "sweep-8d2062ae"), ("別の", "sweep-455517a7"),
    ],
)  # fmt: skip
def test_a_file_gives_its_sweep_a_name(stem: str, name: str) -> None:
    assert name_of_file(stem) == name


def test_files_of_other_names_give_other_names() -> None:
    stems = ["実験", "別の", "a実", "a別", "é", "è", "a" * 81, "a" * 80 + "b", "a" * 90, "a", "a+b", "a&b", "-a", ".a",
             "a-", "_", "-", "🐈", "x\udcff", "x\udcfe"]  # fmt: skip
    names = [name_of_file(stem) for stem in stems]
    assert len(set(names)) == len(stems)
    assert all(SweepSpec(name=name).name == name for name in names)
    assert name_of_file("e\u0301") == name_of_file("\u00e9")  # one name, as two systems write it
