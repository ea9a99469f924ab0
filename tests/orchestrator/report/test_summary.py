"""The result table of a sweep."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.ledger.job_moves import first_record
from orchestrator.ledger.records import JobRecord
from orchestrator.planning.setting_layers import without
from orchestrator.report.summary import HEADINGS, as_json, as_markdown, cells_of, result_table, used_columns
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import Failure, JobResult
from tests.support.doubles import metrics, plan_of

SWEEP = plan_of("smoke", backbones=("alexnet",))
JOBS = [job for job in SWEEP.jobs if job.key not in SWEEP.upstream_keys]


def done(spec: JobSpec, accuracy: float, instability: float | None, **more: Any) -> JobRecord:
    found = metrics(accuracy, instability, weights="pretrain", **more)
    result = JobResult(job_key=spec.key, attempt=1, stop_reason=StopReason.FINISHED, metrics=found)
    return replace(first_record(spec, "s", 0.0, "r"), state=JobState.SUCCEEDED, result=result)


def failed(spec: JobSpec) -> JobRecord:
    failure = Failure(kind="Diverged", message="loss is nan in epoch 3\nmore")
    result = JobResult(job_key=spec.key, attempt=1, stop_reason=StopReason.DIVERGED, failure=failure)
    return replace(first_record(spec, "s", 0.0, "r"), state=JobState.FAILED, result=result)


def test_variants_stand_side_by_side_with_their_relative_change() -> None:
    values = [(0.90, 0.10), (0.88, 0.06), (0.80, 0.20), (0.80, 0.10)]
    more = {"chance_accuracy": 0.5, "tracking_share": 0.04}
    table = result_table([done(job, *pair, **more) for job, pair in zip(JOBS, values, strict=True)])
    assert [cells_of(row) for row in table.rows] == [
        ("voc-cat", "alexnet", "", "0.900", "0.880", "0.500", "0.1000", "0.0600", "-40%", "4%", "4%"),
        ("cub-bird", "alexnet", "", "0.800", "0.800", "0.500", "0.2000", "0.1000", "-50%", "4%", "4%"),
    ]
    # Means first, then their ratio: 0.08 / 0.15.
    assert [cells_of(row) for row in table.averages] == [
        ("mean of 2", "alexnet", "", "0.850", "0.840", "0.500", "0.1500", "0.0800", "-47%", "4%", "4%")
    ]


def test_a_job_of_before_a_field_existed_is_no_setting_of_its_own() -> None:
    new = [done(job, 0.9, 0.1) for job in JOBS]
    fields = without(without(new[0].fields, "train.bias_lr_multiplier"), "evaluation.split")
    old = replace(new[0], spec_json=json.dumps(fields))
    assert result_table([old, *new[1:]]).rows == result_table(new).rows
    changed = {**JOBS[0].model_dump(mode="json"), "seed": 7}
    changed["train"]["bias_lr_multiplier"] = 5.0
    other = done(JobSpec.model_validate(changed), 0.9, 0.1)
    settings = [row.settings for row in result_table([old, other, *new[1:]]).rows if row.category == "voc-cat"]
    assert settings == ["train.bias_lr_multiplier=1.0", "train.bias_lr_multiplier=5.0"]


def test_averages_are_over_categories_that_have_both_variants() -> None:
    table = result_table([done(JOBS[0], 1.0, 0.1), done(JOBS[1], 1.0, 0.1), done(JOBS[2], 0.0, 0.9), failed(JOBS[3])])
    assert table.averages == ()
    assert cells_of(table.rows[1])[3:] == ("0.000", "-", "-", "0.9000", "-", "-", "-", "-")


@pytest.mark.parametrize(
    ("accuracy", "chance", "is_untrained"),
    [(0.5, 0.5, True), (0.59, 0.5, True), (0.61, 0.5, False), (0.99, 0.97, False), (0.4, None, False)],
)
def test_networks_at_chance_are_said_to_prove_nothing(
    accuracy: float, chance: float | None, is_untrained: bool
) -> None:
    table = result_table([done(job, accuracy, 0.1, chance_accuracy=chance) for job in JOBS])
    assert table.headlines[0].startswith("Accuracy is hardly above chance") is is_untrained
    assert len(table.headlines) == 1 + is_untrained


def test_a_failed_job_is_listed_with_its_reason() -> None:
    table = result_table([failed(JOBS[3])])
    assert table.failed == (("cub-bird alexnet interpretable", "Diverged: loss is nan in epoch 3"),)
    assert "Diverged: loss is nan in epoch 3" in as_markdown(table)


def test_jobs_that_only_lend_their_weights_are_left_out() -> None:
    assert result_table([done(SWEEP.jobs[0], 0.1, 0.3)], SWEEP.upstream_keys).rows == ()


def test_the_caption_says_what_the_images_are_and_on_which_filters_were_measured() -> None:
    generated = result_table([done(JOBS[0], 1.0, 0.1)]).caption
    photographs = result_table([done(JOBS[0], 1.0, 0.1, images="photographs", measured_split="all")]).caption
    assert generated == "generated animals; filters measured on held-out images; weights from pretrain"
    assert photographs == "photographs; filters measured on all annotated images; weights from pretrain"


@pytest.mark.parametrize(
    ("levels", "words"), [((0.5, 0.5), "0.50"), ((0.5, 0.748), "0.50 to 0.75"), ((None, 0.25), "0.25")]
)
def test_the_caption_says_what_accuracy_chance_has(levels: tuple[float | None, ...], words: str) -> None:
    jobs = [done(job, 1.0, 0.1, chance_accuracy=level) for job, level in zip(JOBS[:2], levels, strict=True)]
    assert result_table(jobs).caption.endswith(f"weights from pretrain; accuracy by chance {words}")


def test_what_the_paper_profile_sets_for_cub_is_no_setting_of_the_sweep() -> None:
    sweep = plan_of("all-categories", profile="paper", backbones=("alexnet",), categories=("voc-cat", "cub-bird"))
    table = result_table([done(job, 0.9, 0.1) for job in sweep.jobs])
    assert [(row.category, row.settings, len(row.cells)) for row in table.rows] == [
        ("voc-cat", "", 2),
        ("cub-bird", "", 2),
    ]
    assert [row.category for row in table.averages] == ["mean of 2"]


def test_skipped_images_are_counted() -> None:
    table = result_table([done(JOBS[0], 1.0, 0.1, skipped_images=3), done(JOBS[1], 1.0, 0.1)])
    assert table.skipped_images == 3
    assert "3 unreadable images were skipped" in as_markdown(table)


def test_seeds_are_averaged() -> None:
    jobs = plan_of({"grid": "smoke", "axes": {"seed": [0, 1]}}, categories=("cat",), backbones=("alexnet",)).jobs
    ordinary = [job for job in jobs if job.model.variant == "ordinary" and job.is_single]
    table = result_table([done(job, *pair) for job, pair in zip(ordinary, [(0.8, 0.1), (1.0, 0.2)], strict=True)])
    assert [cells_of(row)[:4] for row in table.rows] == [("voc-cat", "alexnet", "", "0.900")]
    assert table.rows[0].cells["ordinary"].jobs == 2


def test_an_ordinary_job_stands_beside_every_setting_of_the_filter_loss() -> None:
    fields = {"grid": "smoke", "axes": {"filter_loss.weight": [0.1, 1.0]}}
    sweep = plan_of(fields, categories=("cat",), backbones=("alexnet",))
    jobs = [job for job in sweep.jobs if job.is_single]
    table = result_table([done(job, 0.9, 0.2 - 0.05 * i) for i, job in enumerate(jobs)])
    assert [(row.settings, cells_of(row)[6:8]) for row in table.rows] == [
        ("filter_loss.weight=0.1", ("0.2000", "0.1500")),
        ("filter_loss.weight=1.0", ("0.2000", "0.1000")),
    ]
    assert 2 in used_columns(table)


def test_only_what_departs_from_the_default_filter_loss_is_named() -> None:
    fields = {"grid": "smoke", "axes": {"filter_loss": [None, {}, {"form": "exact"}]}}
    jobs = [job for job in plan_of(fields, categories=("cat",), backbones=("alexnet",)).jobs if job.is_single]
    table = result_table([done(job, 0.9, 0.1) for job in jobs])
    assert [row.settings for row in table.rows] == ["filter_loss=None", "default", "filter_loss.form=exact"]


def test_a_job_without_landmarks_has_no_instability() -> None:
    row = result_table([done(JOBS[0], 0.9, None), done(JOBS[1], 0.9, 0.1)]).rows[0]
    assert row.change is None
    assert cells_of(row)[6:9] == ("-", "0.1000", "-")


def test_the_json_has_the_same_numbers() -> None:
    table = as_json(result_table([done(JOBS[0], 0.9, 0.1), done(JOBS[1], 0.8, 0.05)]))
    cell = table["rows"][0]["interpretable"]
    assert cell.pop("measures")["instability"] == 0.05
    assert cell == {"accuracy": 0.8, "chance": None, "location_instability": 0.05, "jobs": 1}
    assert table["rows"][0]["instability_change"] == -0.5


def test_the_markdown_has_a_table_with_means_first_and_numbers_to_the_right() -> None:
    values = [(0.90, 0.10), (0.88, 0.06), (0.80, 0.20), (0.80, 0.10)]
    text = as_markdown(result_table([done(job, *pair) for job, pair in zip(JOBS, values, strict=True)]))
    caption, _, headings, rule, *rows = text.splitlines()
    assert caption == "**generated animals; filters measured on held-out images; weights from pretrain**"
    assert [cell.strip() for cell in headings.split("|")[1:-1]] == [HEADINGS[i] for i in (0, 1, 3, 4, 6, 7, 8)]
    assert [cell.endswith(":") for cell in rule.split("|")[1:-1]] == [False] * 2 + [True] * 5
    assert [row.split()[1] for row in rows[:3]] == ["mean", "voc-cat", "cub-bird"]
    assert rows[3:] == [
        "",
        "alexnet, mean of 2: Interpretable is 47% below ordinary (0.1500 to 0.0800). How much of it follows the part "
        "was not measured.",
    ]
