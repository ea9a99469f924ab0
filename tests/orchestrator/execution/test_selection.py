"""Which jobs options and words select."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.execution.selection import Which, can_be_cancelled, find_jobs, parse_which, pick, what_there_is
from orchestrator.ledger.records import JobRecord, StoredPlan
from schemas.errors import SpecError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from tests.support.doubles import plan_of, record_of

S, R = JobState, StopReason
SWEEP = plan_of("smoke", categories=("voc_part/cat", "cub200/bird"), backbones=("alexnet", "vgg16"))
UPSTREAM = {job.model.backbone: job for job in SWEEP.jobs if job.key in SWEEP.upstream_keys}
JOBS = {
    (job.data.categories[0], job.model.backbone, job.model.variant): job
    for job in SWEEP.jobs
    if job.key not in SWEEP.upstream_keys
}
CAT = JOBS["voc_part/cat", "alexnet", "ordinary"]
PLAN = StoredPlan.of("s", "laptop", None, SWEEP.jobs, SWEEP.upstream_keys, SWEEP.resources)


def which(**words: Any) -> Which:
    given = {"failed": True, "cancelled": False, "reasons": (), "categories": (), "backbones": ()} | words
    return parse_which(**given)


def picked(chosen: Which, *records: JobRecord) -> set[str]:
    return {record.title for record in pick(PLAN, {record.key: record for record in records}, chosen)}


def all_failed(reason: StopReason = R.BAD_DATA) -> list[JobRecord]:
    return [record_of(job, S.FAILED, reason) for job in SWEEP.jobs]


def test_all_failed_jobs_are_meant_where_nothing_narrows() -> None:
    done = record_of(CAT, S.SUCCEEDED)
    others = [record for record in all_failed() if record.key != CAT.key]
    assert picked(which(), done, *others) == {record.title for record in others}


def test_a_category_brings_along_what_its_jobs_start_from_and_nothing_else() -> None:
    found = picked(which(categories=["voc-cat"], backbones=["vgg16"]), *all_failed())
    jobs = [job for (category, backbone, _), job in JOBS.items() if (category, backbone) == ("voc_part/cat", "vgg16")]
    assert len(jobs) == 2
    assert found == {UPSTREAM["vgg16"].title, *(job.title for job in jobs)}


def test_a_reason_narrows() -> None:
    records = [record_of(CAT, S.FAILED, R.OUT_OF_MEMORY), record_of(UPSTREAM["vgg16"], S.FAILED, R.DIVERGED)]
    assert picked(which(reasons=["out_of_memory"]), *records) == {CAT.title}


@pytest.mark.parametrize("state", [S.QUEUED, S.RUNNING, S.REQUEUED, S.SUCCEEDED])
def test_what_has_not_ended_badly_is_never_meant(state: JobState) -> None:
    assert picked(Which(failed=True, cancelled=True, cancelled_with_sweep=True), record_of(CAT, state)) == set()


@pytest.mark.parametrize(
    ("chosen", "reasons"),
    [
        (Which(failed=True), set()),
        (Which(cancelled=True), {R.CANCELLED_BY_USER, R.SWEEP_CANCELLED}),
        (Which(cancelled_with_sweep=True), {R.SWEEP_CANCELLED}),
    ],
)
def test_a_job_cancelled_by_name_comes_back_only_when_asked_for(chosen: Which, reasons: set[StopReason]) -> None:
    cancelled = [record_of(CAT, S.CANCELLED, reason) for reason in (R.CANCELLED_BY_USER, R.SWEEP_CANCELLED)]
    assert {record.stop_reason for record in cancelled if chosen.fits(record)} == reasons


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"failed": False}, "`--failed`, `--cancelled`"),
        ({"reasons": ["out-of-memory"]}, "No reason is called 'out-of-memory'. Did you mean 'out_of_memory'"),
        ({"backbones": ["vgg19"]}, "No backbone is called 'vgg19'. Did you mean 'vgg16'"),
        ({"categories": ["zbra"]}, "Did you mean 'zebra'"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        which(**words)
    assert message in str(refused.value)


def test_who_picks_nothing_is_told_what_there_is() -> None:
    failed = [record for record in all_failed() if record.key not in PLAN.upstream_keys]
    said = what_there_is(PLAN, {record.key: record for record in failed})
    assert said.startswith("There are 8 failed (bad_data): voc-cat alexnet ordinary, ")
    assert said.endswith(", ....")
    assert what_there_is(PLAN, {CAT.key: record_of(CAT, S.SUCCEEDED)}) == "None of its jobs failed or was cancelled."


@pytest.mark.parametrize(
    ("record", "alive", "can"),
    [
        (record_of(CAT, S.SUCCEEDED), False, False),
        (record_of(CAT, S.RUNNING), True, True),  # held by this sweep
        (record_of(CAT, S.RUNNING, driven_by="other"), True, False),
        (record_of(CAT, S.RUNNING, driven_by="other"), False, True),
        (record_of(CAT, S.REQUEUED, driven_by="other"), True, True),
    ],
)
def test_a_job_in_another_drivers_hand_is_not_ours_to_cancel(record: JobRecord, alive: bool, can: bool) -> None:
    assert can_be_cancelled(record, "s", lambda sweep: alive) is can


NAMES = [("ab12", "voc-cat alexnet ordinary"), ("ab34", "voc-cat alexnet ordinary seed 1"), ("cd56", "voc-cow vgg16")]


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("ab", ["ab12", "ab34"]),
        ("AB12", ["ab12"]),
        ("voc-cat alexnet ordinary", ["ab12"]),  # a whole title wins over one that only contains it
        ("Seed 1 voc-cat", ["ab34"]),
        ("alexnet", ["ab12", "ab34"]),
        ("cat seed", ["ab34"]),  # `cat` also stands for `voc-cat`
        ("alex", []),
        ("  ", []),
    ],
)
def test_jobs_are_found_by_the_start_of_a_key_a_title_or_its_words(word: str, keys: list[str]) -> None:
    assert find_jobs(word, NAMES) == keys


def test_the_jobs_of_this_file_are_what_it_takes_them_for() -> None:
    assert (len(UPSTREAM), len(JOBS)) == (2, 8)
    assert isinstance(CAT, JobSpec)
