"""How busy a machine is reaches the run of its job while the job goes on, without ever disturbing the job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import pytest

from schemas.errors import StoreUnreachable, Superseded
from schemas.order import WorkOrder
from tests.support.toy import toy_spec
from workers.tracking import system_metrics as module
from workers.tracking.job_log import UPLOADING_THREAD
from workers.tracking.run_log import RunLog
from workers.tracking.system_metrics import SystemMetrics, system_metrics

if TYPE_CHECKING:
    from tests.conftest import Store


class Run:
    """A run that keeps what it is sent, and first raises the errors that it is given."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.logged, self.opened = list(errors), list[Mapping[str, float]](), 0
        self.has_some = threading.Event()

    def open(self) -> RunLog:
        self.opened += 1
        return cast("RunLog", self)

    def log_system(self, values: Mapping[str, float]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.logged.append(values)
        self.has_some.set()


def order(seconds: float) -> WorkOrder:
    return WorkOrder(
        spec=toy_spec("ordinary"), run_id="r", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir="",
        system_metrics_seconds=seconds,
    )  # fmt: skip


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == UPLOADING_THREAD]


def test_the_machine_is_measured_under_the_names_that_mlflow_s_page_shows(
    store: Store, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    metrics = SystemMetrics(lambda: RunLog(store.uri, run_id, 1))
    for _ in range(2):
        metrics.log()
    logged = store.client.get_run(run_id).data.metrics
    assert 0 <= logged["system/cpu_utilization_percentage"] <= 100
    assert 0 < logged["system/system_memory_usage_percentage"] <= 100
    assert logged["system/system_memory_usage_megabytes"] > 10


def test_a_replaced_attempt_logs_no_measurement(store: Store, new_run: Callable[[], str]) -> None:
    run_id = new_run()
    log = RunLog(store.uri, run_id, 1)
    store.client.set_tag(run_id, "orch.attempt", "2")
    with pytest.raises(Superseded):
        log.log_system({"system/cpu_utilization_percentage": 50.0})
    assert store.client.get_run(run_id).data.metrics == {}


@pytest.mark.parametrize("error", [StoreUnreachable("away"), OSError("broken pipe"), KeyError("an odd answer")])
def test_an_outage_costs_a_measurement_and_not_the_job(error: Exception) -> None:
    run = Run(error)
    metrics = SystemMetrics(run.open)
    for _ in range(3):
        metrics.log()
    assert (len(run.logged), run.opened) == (1, 2)


def test_a_job_logs_while_it_runs_and_ends_with_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    monkeypatch.setattr(module, "RunLog", lambda *_: run.open())
    with system_metrics(order(0.01)):
        assert run.has_some.wait(60)
    assert not threads()


def test_nothing_is_measured_unless_asked() -> None:
    with system_metrics(order(0.0)):
        assert not threads()
