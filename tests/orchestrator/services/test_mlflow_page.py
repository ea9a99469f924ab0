"""What a browser shows of a store: the views, a comparison of two jobs, a gallery of filters, and their numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from PIL import Image

from orchestrator.ledger import store
from orchestrator.ledger.mlflow_ledger import MlflowLedger
from orchestrator.ledger.records import StoredPlan
from orchestrator.services.mlflow_ui import free_port
from orchestrator.settings import Settings
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from schemas.results import Failure
from schemas.sweep import Resources
from tests.support.doubles import metrics, result_of
from tests.support.toy import toy_spec
from workers.tracking.run_log import FIGURE_FILES, RunLog

BROWSER = next((path for name in ("chromium", "google-chrome", "chromium-browser") if (path := shutil.which(name))), "")
VIRTUAL_SECONDS = 60
"""Time of the browser's clock in which a page is drawn; it passes as fast as requests are answered."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no Chromium: install the package `chromium` to look at MLflow's page"),
]


class Served(NamedTuple):
    """A store behind MLflow's page."""

    pages: dict[str, str]
    """Address by view, as `orch ui --json` gives them."""
    runs: tuple[str, ...]
    """Of an ordinary and an interpretable job that succeeded, and of one that failed."""
    experiment: str

    @property
    def base(self) -> str:
        """Address of the page."""
        return self.pages["jobs"].partition("#")[0]


def filled(settings: Settings, folder: Path) -> tuple[str, ...]:
    """Log two finished jobs and one that failed, without training them."""
    ledger = MlflowLedger(store.open_client(settings), settings.store_uri)
    specs = [toy_spec("ordinary"), toy_spec("interpretable"), toy_spec("ordinary", seed=7)]
    ledger.begin_sweep(StoredPlan.of("shown", "laptop", None, specs, frozenset(), Resources()), 0.0)
    (folder / FIGURE_FILES[4]).parent.mkdir(parents=True)
    Image.new("RGB", (60, 40), (200, 30, 30)).save(folder / FIGURE_FILES[4])
    runs = []
    for number, spec in enumerate(specs):
        record = ledger.add(spec, "shown", 0.0)
        ledger.move(spec.key, JobState.RUNNING, 1.0)
        order = WorkOrder(spec=spec, run_id=record.run_id, attempt=1, tracking_uri="", cache_dir="", checkpoint_dir="")
        if number < 2:
            result = result_of(order).model_copy(update={"metrics": metrics(0.91, 0.1234567 - number / 100)})
            assert result.metrics is not None
            log = RunLog(settings.store_uri, record.run_id, 1)
            log.log_spec(spec)
            log.log_outcome(result.metrics, folder)
            ledger.move(spec.key, JobState.SUCCEEDED, 2.0, reason=StopReason.FINISHED, result=result)
        else:
            failure = Failure(kind="Diverged", message="the loss became infinite")
            result = result_of(order, StopReason.DIVERGED).model_copy(update={"failure": failure})
            ledger.move(spec.key, JobState.FAILED, 2.0, reason=StopReason.DIVERGED, result=result)
        runs.append(record.run_id)
    return tuple(runs)


@pytest.fixture(scope="module")
def served(new_home: Callable[[], Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`orch ui` of a store with three jobs."""
    settings = new_home()
    runs = filled(settings, tmp_path_factory.mktemp("files"))
    client = store.open_client(settings)
    experiment = store.experiment_of(client, settings.store_uri).experiment_id
    command = [sys.executable, "-m", "orchestrator.cli.main", "ui", "--json", "--port", str(free_port(0))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**_environment(), "ORCH_HOME": str(settings.home)}
    ) as ui:
        assert ui.stdout is not None
        try:
            text = ""
            while not text.endswith("}\n") and (line := ui.stdout.readline()):
                text += line
            pages = json.loads(text)
            assert "error" not in pages, pages
            yield Served(pages, runs, experiment)
        finally:
            ui.send_signal(signal.SIGINT)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.fixture
def look(tmp_path: Path) -> Callable[[str], str]:
    """Return the text of an address's page after its scripts have run."""

    def dom(address: str) -> str:
        command = [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
            f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1440,900",
            f"--virtual-time-budget={VIRTUAL_SECONDS * 1000}", "--dump-dom", address,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout

    return dom


def cells(page: str) -> list[str]:
    """Return the texts between a page's tags."""
    return [text.strip() for text in re.findall(r">([^<>]+)<", page) if text.strip()]


def test_the_view_of_jobs_shows_names_and_rounded_numbers(served: Served, look: Callable[[str], str]) -> None:
    shown = cells(look(served.pages["jobs"]))
    assert "voc-cat alexnet interpretable" in shown
    assert {"0.1235", "0.1135"} <= set(shown)
    assert "3 matching runs" in " ".join(shown)


def test_the_view_of_failed_jobs_shows_why(served: Served, look: Callable[[str], str]) -> None:
    shown = cells(look(served.pages["failed"]))
    assert "voc-cat alexnet ordinary seed 7" in shown
    assert "diverged" in shown
    assert "voc-cat alexnet interpretable" not in shown


def test_two_jobs_are_compared(served: Served, look: Callable[[str], str]) -> None:
    runs, experiments = quote(json.dumps(served.runs[:2])), quote(json.dumps([served.experiment]))
    shown = cells(look(f"{served.base}#/compare-runs?runs={runs}&experiments={experiments}"))
    assert {"voc-cat alexnet ordinary", "voc-cat alexnet interpretable"} <= set(shown)
    assert {"0.1235", "0.1135"} <= set(shown)


def test_the_gallery_of_filters_is_a_picture_of_the_page(served: Served, look: Callable[[str], str]) -> None:
    where = f"#/experiments/{served.experiment}/runs/{served.runs[1]}/artifacts/{FIGURE_FILES[4]}"
    page = look(f"{served.base}{where}")
    assert "voc-cat alexnet interpretable" in cells(page)
    assert re.search(rf'<img alt="{FIGURE_FILES[4]}" src="blob:', page)
