"""Figures and explanations of finished jobs: what is refused early, and the results of a real network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.cli.main import main
from orchestrator.ledger import opening, store
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.job_moves import first_record
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.mlflow_ledger import MlflowLedger
from orchestrator.ledger.records import JobRecord, StoredPlan
from orchestrator.services import figures
from orchestrator.settings import Settings
from schemas.errors import DataError, SpecError, StoreError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from tests.support.doubles import result_of


def tiny(variant: str, **changes: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "data": {"categories": ("voc_part/cat",), "train_per_category": 8, "test_per_category": 6},
            "model": {"backbone": "alexnet", "variant": variant, "width": 0.05, "input_size": 64, "fc_width": 16},
            "filter_loss": {} if variant == "interpretable" else None,
            "train": {"epochs": 1, "batch_size": 8},
            **changes,
        }
    )


def order_of(spec: JobSpec, settings: Settings, run_id: str = "r") -> WorkOrder:
    return WorkOrder(
        spec=spec, run_id=run_id, attempt=1, tracking_uri=settings.store_uri, cache_dir=str(settings.cache_dir),
        checkpoint_dir=str(settings.checkpoint_dir),
    )  # fmt: skip


def plan_with(*specs: JobSpec, data_root: str | None = None) -> StoredPlan:
    jobs = tuple(spec.model_dump(mode="json") for spec in specs)
    return StoredPlan(name="pictured", profile="laptop", jobs=jobs, data_root=data_root)


def record_of(spec: JobSpec, state: JobState = JobState.SUCCEEDED) -> JobRecord:
    return replace(first_record(spec, "s", 0.0, f"run of {spec.title}"), state=state)


# -- which network stands beside which ----------------------------------------------------------------------------


def beside(spec: JobSpec, *others: JobSpec) -> str | None:
    records = {one.key: record_of(one) for one in (spec, *others)}
    found = figures.counterpart(records[spec.key], records)
    return found.key if found else None


def test_the_counterpart_differs_in_the_variant_alone() -> None:
    ordinary, interpretable = tiny("ordinary"), tiny("interpretable")
    assert beside(interpretable, ordinary) == ordinary.key
    assert beside(ordinary, interpretable) == interpretable.key
    assert beside(interpretable, tiny("ordinary", seed=1)) is None
    assert beside(interpretable) is None


def test_of_several_counterparts_the_one_with_the_usual_loss_is_taken() -> None:
    usual = tiny("interpretable")
    others = [tiny("interpretable", filter_loss={"weight": weight}) for weight in (1e-4, 1e-2, 1e-1)]
    assert beside(tiny("ordinary"), *others, usual) == usual.key


def test_a_counterpart_that_has_not_succeeded_is_none() -> None:
    one, other = tiny("interpretable"), tiny("ordinary")
    records = {one.key: record_of(one), other.key: record_of(other, JobState.RUNNING)}
    assert figures.counterpart(records[one.key], records) is None


# -- what is refused ----------------------------------------------------------------------------------------------


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    ledger = InMemoryLedger()
    ledger.begin_sweep(plan_with(tiny("ordinary")), 0.0)
    ledger.add(tiny("ordinary"), "pictured", 0.0)
    monkeypatch.setattr(opening, "open_ledger", lambda settings: ledger)
    return ledger


@pytest.mark.parametrize("command", [["figure", "voc-cat"], ["explain", "voc-cat", "cat.jpg"]])
def test_a_job_without_a_final_network_is_refused(
    queued: Ledger,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*command) == 2
    assert "is queued, so it has no final network" in capsys.readouterr().err
    assert run(command[0], "zebra", *command[2:]) == 2
    assert "No job fits 'zebra'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_figure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("figure", "cat", "--figure", "7") == 2
    assert "No figure is called '7'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"), [("cat.gif", "PNG"), ("nowhere/cat.png", "nowhere does not exist or cannot be written to")]
)
def test_a_file_that_cannot_be_written_is_refused_first(
    queued: Ledger, tmp_path: Path, name: str, message: str
) -> None:
    spec = tiny("ordinary")
    queued.move(spec.key, JobState.RUNNING, 1.0)
    queued.move(
        spec.key, JobState.SUCCEEDED, 2.0, reason=StopReason.FINISHED, result=result_of(order_of(spec, Settings()))
    )
    with pytest.raises(SpecError, match=message):
        figures.draw_figures(
            Settings(), spec.key, (5,), tmp_path / name, figures.DrawOptions(), data_root=None, report=lambda _: None
        )


# -- a real network -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Settings]) -> Settings:
    """A store with an ordinary and an interpretable network, one epoch each."""
    from workers.job import run_job

    settings = new_home()
    ledger = MlflowLedger(store.open_client(settings), settings.store_uri)
    specs = [tiny(variant) for variant in ("ordinary", "interpretable")]
    ledger.begin_sweep(plan_with(*specs), 0.0)
    for spec in specs:
        record = ledger.add(spec, "pictured", 0.0)
        ledger.move(spec.key, JobState.RUNNING, 1.0, facts={"attempt": "1"})
        result = run_job(order_of(spec, settings, record.run_id), lambda _: None, lambda: False)
        assert result.stop_reason is StopReason.FINISHED, result.failure
        ledger.move(spec.key, JobState.SUCCEEDED, 2.0, reason=StopReason.FINISHED, result=result)
    return settings


@pytest.fixture
def at_home(home: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ORCH_HOME", str(home.home))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.slow
def test_figures_are_taken_from_the_run_or_drawn_and_left_there(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--images", "1", "--stride", "0.3", "--filters", "2"]
    asked = ["figure", "voc-cat alexnet interpretable", "--json"]
    assert run(*asked, "--figure", "5", "--out", "own.png", *quick) == 0
    own = json.loads(capsys.readouterr().out)["figures"]
    assert own == [
        {
            "figure": 5, "file": "own.png", "from_run": False,
            "jobs": ["voc-cat alexnet interpretable", "voc-cat alexnet ordinary"],
        }
    ]  # fmt: skip
    for times in range(2):
        assert run(*asked, "--out", "cat.png") == 0
        drawn = {one["figure"]: one["from_run"] for one in json.loads(capsys.readouterr().out)["figures"]}
        assert drawn == {4: times == 1, 5: times == 1, 6: True}
    sizes = {path.name: size_of(path) for path in at_home.iterdir()}
    assert sorted(sizes) == ["cat-figure4.png", "cat-figure5.png", "cat-figure6.png", "own.png"]
    assert sizes["own.png"][1] < sizes["cat-figure5.png"][1]


@pytest.mark.slow
def test_a_photograph_is_explained(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    Image.fromarray(pixels).save(at_home / "cat.jpg")
    asked = ["explain", "voc-cat alexnet interpretable", "cat.jpg", "--box", "10,5,110,75"]
    assert run(*asked) == 0
    assert "explain-cat.png" in capsys.readouterr().out
    assert size_of(at_home / "explain-cat.png")[0] > 800
    assert run(*asked, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["box"] == [10, 5, 110, 75]
    shares = [says["contribution"] for says in answer["filters"]]
    assert answer["base"] + sum(shares) + answer["residual"] == pytest.approx(answer["logit"], abs=1e-5)
    assert any(says["usually_peaks"].startswith("on ") for says in answer["filters"])
    assert run(*asked, "--category", "dog") == 2
    assert "voc_part/cat" in capsys.readouterr().err
    assert run("explain", "voc-cat alexnet interpretable", "dog.jpg") == 3


def test_a_network_is_read_where_its_run_has_it_and_is_not_copied(home: Settings) -> None:
    record = opening.open_ledger(home).get(tiny("ordinary").key)
    result = record.result
    assert result is not None
    assert result.checkpoint is not None
    moved = result.checkpoint.model_copy(update={"path": "/elsewhere/attempt-1/epoch-0001-step-0000-0a1b2c3d.pt"})
    for final in (result.checkpoint, moved):  # as recorded, and as a worker of an earlier version elsewhere did
        network = figures.load_network(home, replace(record, result=result.model_copy(update={"checkpoint": final})))
        assert network.mean_SS3.shape == (64, 64, 3)
        assert list(home.checkpoint_dir.rglob("*.pt")) == []
    kept = Path(result.checkpoint.path)
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    try:
        with pytest.raises(StoreError, match=r"final-\w{8}\.pt .* is missing, or its content .*`orch fsck --repair`"):
            figures.load_network(home, record)
    finally:
        kept.write_bytes(whole)


@pytest.mark.slow
def test_images_that_have_changed_are_refused(home: Settings, tmp_path: Path) -> None:
    spec = tiny("ordinary", data={**tiny("ordinary").data.model_dump(), "digest": "another"})
    ledger = MlflowLedger(store.open_client(home), home.store_uri)
    record = ledger.add(spec, "pictured", 0.0)
    ledger.move(spec.key, JobState.RUNNING, 1.0)
    done = ledger.get(tiny("ordinary").key).result
    ledger.move(record.key, JobState.SUCCEEDED, 2.0, reason=StopReason.FINISHED, result=done)
    with pytest.raises((DataError, figures.StoreError), match=r"changed since|belongs to job"):
        figures.draw_figures(
            home, spec.key, (6,), tmp_path / "cat.png", figures.DrawOptions(), data_root=None, report=lambda _: None
        )
