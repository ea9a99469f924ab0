"""What a plan says that its jobs take, from the finished jobs of the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution.past_jobs import past_of
from orchestrator.ledger.records import JobRecord
from orchestrator.services import costs
from orchestrator.services.costs import cost_of
from orchestrator.settings import Settings
from schemas.job import JobSpec
from schemas.lifecycle import JobState
from schemas.sweep import Resources
from tests.support.reports import done, sweep_of

PLANNED, JOBS = sweep_of("first", name="s")
ONE_WORKER = Resources(workers=1)


def finished(spec: JobSpec, seconds: float, attempt: int = 1) -> JobRecord:
    record = done(spec).record
    assert record is not None
    assert record.result is not None
    result = record.result.model_copy(update={"seconds": seconds, "attempt": attempt})
    return replace(record, result=result, run_id=f"run-{spec.key}")


def of(variant: str) -> list[JobSpec]:
    return [job for job in JOBS if job.model.variant == variant]


def test_jobs_that_will_run_take_what_finished_ones_of_their_kind_took() -> None:
    first, *others = of("ordinary")
    records = [finished(first, 100.0), finished(of("interpretable")[0], 7.0)]
    cost = cost_of(Settings(), others, PLANNED.upstream_keys, ONE_WORKER, records)
    assert cost is not None
    assert cost.time is not None
    assert (cost.workers, cost.past_jobs, cost.time.unknown, cost.gpu_hours) == (1, 1, 0, None)
    assert cost.time[:2] == pytest.approx((len(others) * 75.0, len(others) * 125.0))


def test_another_number_of_epochs_gives_a_range_and_another_kind_nothing() -> None:
    first, other = of("ordinary")[:2]
    longer = other.model_copy(update={"train": other.train.model_copy(update={"epochs": 3 * other.train.epochs})})
    cost = cost_of(Settings(), [longer, *of("interpretable")], frozenset(), ONE_WORKER, [finished(first, 100.0)])
    assert cost is not None
    assert cost.time is not None
    assert cost.time == (pytest.approx(100.0), pytest.approx(300.0), len(of("interpretable")))
    assert cost.past_jobs == 0


def test_a_pretraining_and_a_continued_job_do_not_count_as_typical() -> None:
    upstream = next(job for job in PLANNED.jobs if job.key in PLANNED.upstream_keys)
    resumed = finished(of("ordinary")[0], 1.0, attempt=2)
    past = past_of([finished(upstream, 36_000.0), resumed])
    assert {kind.stage: seconds for kind, seconds in past.seconds.items()} == {"pre-training": [36_000.0]}
    cost = cost_of(Settings(), JOBS, PLANNED.upstream_keys, ONE_WORKER, [finished(upstream, 36_000.0)])
    assert cost is not None
    assert cost.time is None


def test_a_job_of_a_pack_took_its_share_of_the_time() -> None:
    alone, packed, *others = of("ordinary")
    beside_seven = finished(packed, 400.0)
    assert beside_seven.result is not None
    result = beside_seven.result.model_copy(update={"jobs_at_once": 8.0})
    past = past_of([finished(alone, 100.0), replace(beside_seven, result=result)])
    assert list(past.seconds.values()) == [[100.0, 50.0]]
    cost = cost_of(Settings(), others, PLANNED.upstream_keys, ONE_WORKER, [replace(beside_seven, result=result)])
    assert cost is not None
    assert cost.time is not None
    assert cost.time[:2] == pytest.approx((len(others) * 37.5, len(others) * 62.5))


def test_disk_and_gpu_hours_follow_from_files_and_the_workers_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("ORCH_HOME", str(home))
    first, *others = of("ordinary")
    for folder in (home / "artifacts" / f"run-{first.key}", home / "checkpoints" / first.key):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * 1_000_000)
    half_a_gpu = Resources(workers=2, gpus_per_worker=0.5)
    cost = cost_of(Settings(), others, frozenset(), half_a_gpu, [finished(first, 3600.0)])
    assert cost is not None
    assert cost.gigabytes == pytest.approx(0.001 * len(others))
    assert cost.gpu_hours == pytest.approx((len(others) * 0.375, len(others) * 0.625))


@pytest.mark.parametrize(
    ("visible", "cuda", "is_seen"),
    [
        (None, "'13.0'", True), ("0", "'13.0'", True), ("GPU-8a", "'13.0'", True), ("", "'13.0'", False),
        ("-1", "'13.0'", False), (None, "None", False),
    ],
)  # fmt: skip
def test_gpu_hours_count_the_gpus_that_workers_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, cuda: str, is_seen: bool
) -> None:
    versions = f"from typing import Optional\n__version__ = '2.14.1'\ncuda: Optional[str] = {cuda}\nhip = None\n"
    monkeypatch.setattr(costs, "_torch_versions", lambda: versions)
    (tmp_path / "0000:01:00.0").mkdir()
    monkeypatch.setattr(costs, "GPUS", tmp_path)  # one entry: a machine with one GPU
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    first, *others = of("ordinary")
    cost = cost_of(Settings(), others, frozenset(), ONE_WORKER, [finished(first, 3600.0)])
    assert cost is not None
    hours = pytest.approx((len(others) * 0.75, len(others) * 1.25))
    assert cost.gpu_hours == (hours if is_seen else None)


def test_the_installed_pytorch_says_for_what_it_was_built() -> None:
    import torch

    assert bool(costs._HAS_CUDA.search(costs._torch_versions())) == (torch.version.cuda is not None)


def test_jobs_of_an_older_recipe_tell_nothing_of_new_ones() -> None:
    first, *others = of("ordinary")
    older = first.model_copy(update={"recipe": first.recipe - 1})
    cost = cost_of(Settings(), others, frozenset(), ONE_WORKER, [finished(older, 100.0)])
    assert cost is not None
    assert (cost.time, cost.past_jobs) == (None, 0)


def test_without_jobs_to_run_there_is_no_cost() -> None:
    assert cost_of(Settings(), [], frozenset(), ONE_WORKER, []) is None


def test_a_spec_of_another_version_is_passed_over() -> None:
    foreign = replace(finished(JOBS[0], 5.0), spec_json="{}")
    assert not past_of([foreign, replace(finished(JOBS[0], 5.0), state=JobState.FAILED)]).seconds
