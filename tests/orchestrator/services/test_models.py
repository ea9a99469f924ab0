"""Networks as MLflow models: which are the best, and what a store has after they were logged and registered."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from orchestrator.cli.main import main
from orchestrator.ledger import store
from orchestrator.ledger.home import settle
from orchestrator.ledger.job_moves import first_record
from orchestrator.ledger.mlflow_ledger import MlflowLedger
from orchestrator.ledger.records import JobRecord, StoredPlan
from orchestrator.services import models
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from schemas.results import JobResult
from schemas.sweep import Resources
from tests.support.doubles import metrics, result_of
from tests.support.toy import toy_spec


def order_of(spec: JobSpec, settings: Settings, run_id: str = "r") -> WorkOrder:
    return WorkOrder(
        spec=spec, run_id=run_id, attempt=1, tracking_uri=settings.store_uri, cache_dir=str(settings.cache_dir),
        checkpoint_dir=str(settings.checkpoint_dir),
    )  # fmt: skip


def record(spec: JobSpec, accuracy: float, instability: float | None) -> JobRecord:
    result = result_of(order_of(spec, Settings())).model_copy(update={"metrics": metrics(accuracy, instability)})
    return replace(first_record(spec, "s", 0.0, "run"), state=JobState.SUCCEEDED, result=result)


def test_the_best_of_a_category_and_backbone_is_chosen_in_the_direction_of_its_metric() -> None:
    dog = toy_spec("ordinary", data__categories=("voc_part/dog",))
    cats = [record(toy_spec(seed=seed), 0.5 + seed / 10, instability=seed / 10) for seed in range(3)]
    found = [*cats, record(dog, 0.1, instability=None)]
    assert models.best_of(found, "test_accuracy", print) == {"voc-cat-alexnet": cats[2], "voc-dog-alexnet": found[3]}
    assert models.best_of(found, "location_instability", print) == {"voc-cat-alexnet": cats[0]}


def test_a_name_of_another_library_s_network_is_one_that_the_registry_takes() -> None:
    spec = toy_spec(model={"backbone": "torchvision:resnet18@layer4", "variant": "interpretable", "input_size": 64})
    assert models.registered_name(spec) == "voc-cat-torchvision-resnet18-layer4"


def test_a_job_of_another_version_of_orch_is_left_out_with_a_warning() -> None:
    job, foreign = record(toy_spec(), 0.5, None), record(toy_spec(seed=1), 0.9, None)
    said: list[str] = []
    unreadable = replace(foreign, spec_json=json.dumps({**foreign.fields, "renamed_since": 1}))
    assert models.best_of([unreadable, job], "test_accuracy", said.append) == {"voc-cat-alexnet": job}
    assert [foreign.key in line for line in said] == [True]


VOC = ("voc_part/bird", "voc_part/cat", "voc_part/cow", "voc_part/dog")


@pytest.mark.parametrize(
    "selections",
    [[("mittens/кошка",), ("mittens/собака",)], [("mittens/a.b",), ("mittens/a-b",)], [VOC[:3], VOC[1:]]],
)
def test_networks_of_different_categories_do_not_compete(selections: list[tuple[str, ...]]) -> None:
    specs = [toy_spec(data__images="photographs", data__categories=one) for one in selections]
    assert len({models.registered_name(spec) for spec in specs}) == len(specs)


def test_networks_of_the_same_categories_compete_in_whatever_order_the_categories_are() -> None:
    first, second = (toy_spec(data__categories=one) for one in (VOC, VOC[::-1]))
    assert models.registered_name(first) == models.registered_name(second)


def test_networks_that_tell_species_apart_do_not_compete_with_those_that_find_birds() -> None:
    birds = toy_spec("ordinary", data__images="photographs", data__categories=("cub200/bird",))
    species = toy_spec(
        "ordinary", data__images="photographs", data__categories=("cub200/bird",), data__labels="species",
        data__label_names=("001.Gull", "002.Wren"),
    )  # fmt: skip
    assert models.registered_name(birds) == "cub-bird-alexnet" != models.registered_name(species)


def test_the_command_that_serves_a_model_survives_a_shell_if_the_store_has_a_space_in_its_path() -> None:
    uri, store_uri = "models:/mittens-кошка-alexnet@best", "sqlite:////data/Ann Smith/.orch/mlflow.db"
    model = models.PackedModel("key", "title", "m-1", uri, store_uri, is_new=True)
    setting, *command = shlex.split(models.serve_command(model))
    assert setting == f"MLFLOW_TRACKING_URI={store_uri}"
    assert command[:5] == ["mlflow", "models", "serve", "--model-uri", uri]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def fill(settings: Settings, train: Callable[[WorkOrder], JobResult]) -> None:
    """Give a store a sweep whose only job has succeeded."""
    spec = toy_spec(train__epochs=1)
    ledger = MlflowLedger(store.open_client(settings), settings.store_uri)
    ledger.begin_sweep(StoredPlan.of("pictured", "laptop", None, [spec], frozenset(), Resources()), 0.0)
    run_id = ledger.add(spec, "pictured", 0.0).run_id
    ledger.move(spec.key, JobState.RUNNING, 1.0)
    result = train(order_of(spec, settings, run_id))
    ledger.move(spec.key, JobState.SUCCEEDED, 2.0, reason=StopReason.FINISHED, result=result)


@pytest.fixture
def without_files(new_home: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A store whose only job has succeeded, where nothing is exported."""
    settings = new_home()
    fill(settings, result_of)
    monkeypatch.setattr(models, "_store_files", lambda *_: None)
    return settings


def out_of_reach(*_: object, **__: object) -> None:
    raise MlflowException("the store is away")


def test_a_model_whose_link_could_not_be_written_is_logged_and_linked_by_the_next_call(
    without_files: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setattr(MlflowClient, "log_outputs", out_of_reach)
        with pytest.raises(StoreError, match="is away"):
            models.log_model(without_files, "cat", print)
    model = models.log_model(without_files, "cat", print)
    client = store.open_client(without_files)
    logged = client.get_logged_model(model.model_id)
    run = client.get_run(logged.source_run_id)
    assert (model.is_new, logged.status) == (True, "READY")
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert {metric.key for metric in logged.metrics} == {"test_accuracy", "location_instability"}


def test_an_export_that_is_interrupted_while_the_store_is_away_ends_as_interrupted(
    without_files: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "_store_files", interrupt)
    monkeypatch.setattr(MlflowClient, "finalize_logged_model", out_of_reach)
    with pytest.raises(KeyboardInterrupt):
        models.log_model(without_files, "cat", print)


@pytest.fixture
def home(new_home: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A store with one trained network."""
    from workers.job import run_job

    settings = new_home()
    fill(settings, lambda order: run_job(order, lambda _: None, lambda: False))
    monkeypatch.setenv("ORCH_HOME", str(settings.home))
    return settings


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow and torch warn of their own deprecations while they save a model
def test_a_network_is_logged_and_registered_once_and_found_after_a_move(
    home: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pytorch
    import torch

    def fail(*arguments: object) -> None:
        raise RuntimeError("no room")

    with monkeypatch.context() as broken:
        broken.setattr("workers.models.packing.pack", fail)
        assert run("model", "log", "cat") == 70
    capsys.readouterr()
    assert run("model", "log", "cat", "--json") == 0
    logged = json.loads(capsys.readouterr().out)
    assert (logged["is_new"], logged["uri"]) == (True, f"models:/{logged['model_id']}")
    for _ in range(2):
        assert run("model", "register", "pictured", "--json") == 0
        (registered,) = json.loads(capsys.readouterr().out)
        assert (registered["model_id"], registered["version"]) == (logged["model_id"], 1)
        assert not registered["is_new"]
    assert registered["uri"] == "models:/voc-cat-alexnet@best"

    moved = Settings.model_validate({"home": tmp_path / "moved"})
    shutil.move(home.home, moved.home)
    settle(moved)
    mlflow.set_tracking_uri(moved.store_uri)
    try:
        module = mlflow.pytorch.load_model(registered["uri"])
    finally:
        mlflow.set_tracking_uri("")
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 1)
    found = {model.status: model for model in store.open_client(moved).search_logged_models([_experiment(moved)])}
    assert found["FAILED"].model_id != found["READY"].model_id == logged["model_id"]
    assert {metric.key for metric in found["READY"].metrics} >= {"test_accuracy"}


def _experiment(settings: Settings) -> str:
    return store.experiment_of(store.open_client(settings), settings.store_uri).experiment_id
