"""How long a sweep still takes."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from orchestrator.execution.estimate import Estimate, Finished, Kind, Pace, Running, Waiting, kind_of, time_left
from orchestrator.execution.progress import Lines, Now
from schemas.order import Progress
from tests.support.reports import sweep_of

PRETRAINING = Kind("pre-training", "alexnet", 128, 37, 40)
ORDINARY = Kind("ordinary", "alexnet", 128, 1, 10)
INTERPRETABLE = Kind("interpretable", "alexnet", 128, 1, 10)


def finished(**seconds: list[float]) -> Finished:
    kinds = {"pretraining": PRETRAINING, "ordinary": ORDINARY, "interpretable": INTERPRETABLE}
    found = Finished()
    for name, values in seconds.items():
        for value in values:
            found.add(kinds[name], value)
    return found


def pace(*reports: tuple[float, int], began: float = 0.0) -> Pace:
    found = Pace(began)
    for now, epoch in reports:
        found = found.after(Progress(job_key="k", phase="training", epoch=epoch, epochs=40), now)
    return found


def waiting(number: int, kind: Kind, upstream: str | None = None) -> list[Waiting]:
    return [Waiting(f"{kind.stage}-{i}", kind, upstream) for i in range(number)]


@pytest.mark.parametrize(
    ("jobs", "running", "known", "slots", "expected"),
    [
        ([], [], finished(), 2, Estimate(0, 0)),
        (waiting(3, ORDINARY), [], finished(), 2, None),
        # a long pre-training says nothing of the jobs that start from it, and they are counted as unknown
        (waiting(74, ORDINARY), [], finished(pretraining=[36_000]), 2, None),
        (
            waiting(74, ORDINARY, "up"),
            [Running("up", PRETRAINING, pace((0, 0), (100, 10)))],
            finished(),
            2,
            Estimate(270, 450, 74),
        ),
        # four finished jobs narrow the estimate; two slots share eight jobs
        (waiting(8, ORDINARY), [], finished(ordinary=[8, 12, 10, 10]), 2, Estimate(37.5, 42.5)),
        # each kind by its own jobs
        (
            [*waiting(2, ORDINARY), *waiting(2, INTERPRETABLE)],
            [],
            finished(ordinary=[10] * 25, interpretable=[100] * 25),
            1,
            Estimate(pytest.approx(217.8), pytest.approx(222.2)),
        ),
        # a job that waits for its upstream job begins when that ends, whatever else is free
        (
            waiting(1, ORDINARY, "up"),
            [Running("up", PRETRAINING, Pace(0))],
            finished(pretraining=[150] * 25, ordinary=[10] * 25),
            8,
            Estimate(pytest.approx(58.4), pytest.approx(61.6)),
        ),
        # a kind that nobody has seen yet is left out and counted
        ([*waiting(2, ORDINARY), *waiting(3, INTERPRETABLE)], [], finished(ordinary=[10] * 25), 1,
         Estimate(pytest.approx(19.8), pytest.approx(20.2), 3)),
        (waiting(1, ORDINARY), [], finished(ordinary=[10]), 0, None),
    ],
)  # fmt: skip
def test_the_time_left_follows_from_jobs_of_the_same_kind(
    jobs: list[Waiting], running: list[Running], known: Finished, slots: int, expected: Estimate | None
) -> None:
    assert time_left(jobs, running, known, slots, now=100.0) == expected


def test_jobs_of_earlier_sweeps_count_until_this_one_has_finished_some_of_the_kind() -> None:
    past = finished(ordinary=[100] * 25)
    running = [Running("up", ORDINARY, pace((0, 0), (100, 1)))]
    before = time_left(waiting(1, ORDINARY), [], finished(), 1, now=100.0, past=past)
    assert before == Estimate(pytest.approx(90), pytest.approx(110))  # not narrower: the machine may be busier now
    assert time_left(waiting(1, ORDINARY, "up"), running, finished(), 1, 100.0, past) == Estimate(900 * 0.9 + 90, 1460)
    own = time_left(waiting(1, ORDINARY), [], finished(ordinary=[10] * 25), 1, now=100.0, past=past)
    assert own == Estimate(pytest.approx(9.9), pytest.approx(10.1))


def test_a_job_of_an_earlier_sweep_takes_longer_where_its_process_also_runs_others() -> None:
    past = finished(ordinary=[10] * 25)
    found = time_left(waiting(8, ORDINARY), [], finished(), slots=8, now=0.0, past=past, places=8)
    assert found == Estimate(pytest.approx(8 * 9), pytest.approx(8 * 11))
    own = time_left(waiting(8, ORDINARY), [], past, slots=8, now=0.0, places=8)
    assert own == Estimate(pytest.approx(9.9), pytest.approx(10.1)), "it was timed beside the others"


def test_what_earlier_sweeps_tell_is_worked_out_once_per_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [ORDINARY._replace(categories=number) for number in range(100)]
    past = Finished()
    for kind in kinds:
        past.add(kind, 100.0)
    longer = [kind._replace(epochs=30) for kind in kinds]
    compared = Mock(side_effect=lambda kind, epochs: Kind(*kind[:4], epochs, *kind[5:]))
    monkeypatch.setattr(Kind, "_replace", lambda kind, epochs: compared(kind, epochs))
    jobs = [each for kind in longer for each in waiting(1, kind)]
    found = [time_left(jobs, [], finished(), 1, now, past) for now in (0.0, 1.0)]
    assert found == [Estimate(100 * 100.0, 100 * 300.0)] * 2
    assert compared.call_count == len(kinds)
    past.add(longer[0], 50.0)
    assert past.whole_of(longer[0]) == (37.5, 62.5)


def test_a_running_job_is_timed_by_the_epochs_of_this_attempt_only() -> None:
    continued = pace((20, 30), (50, 33), began=0)  # from a checkpoint of epoch 30: ten seconds per epoch
    assert continued.epoch_seconds == 10
    found = time_left([], [Running("k", PRETRAINING, continued)], finished(), 1, now=50.0)
    assert found == Estimate(pytest.approx(63), pytest.approx(105))


def test_an_estimate_falls_while_time_passes_and_never_below_zero() -> None:
    job = Running("k", PRETRAINING, pace((0, 0), (10, 39)))
    assert [time_left([], [job], finished(), 1, now)[1] for now in (10.0, 10.2, 99.0)] == pytest.approx(  # type: ignore[index]
        [15 / 39, 15 / 39 - 0.2, 0]
    )


def test_only_training_gives_a_pace() -> None:
    preparing = Progress(job_key="k", phase="preparing images", epoch=0, epochs=40)
    assert Pace(0).after(preparing, 5.0) == Pace(0)
    assert pace((5, 0)).epoch_seconds is None


def test_kinds_tell_pretraining_variants_and_backbones_apart() -> None:
    planned, _ = sweep_of("cub200", backbones=("alexnet", "vgg16"))
    kinds = {kind_of(job, job.key in planned.upstream_keys) for job in planned.jobs}
    assert {(kind.stage, kind.backbone) for kind in kinds} == {
        (stage, backbone)
        for stage in ("pre-training", "ordinary", "interpretable")
        for backbone in ("alexnet", "vgg16")
    }


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (None, ""),
        (Estimate(600, 610), ", about 10 min left"),
        (Estimate(600, 1200), ", 10 min to 20 min left"),
        (Estimate(600, 900, 74), ", at least 10 min left, and 74 jobs of kinds that have not run long enough to tell"),
    ],
)
def test_a_user_reads_a_range_or_nothing(left: Estimate | None, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    time = [0.0]
    lines = Lines(sys.stdout, lambda: time[0])
    time[0] = 100.0
    lines.show(Now(0, 75, (("voc-cat", None),), left))
    assert capsys.readouterr().out[20:] == f"[0/75] voc-cat: starting{said}\n"
