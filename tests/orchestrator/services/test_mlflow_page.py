"""What a browser shows of a store: the views, a comparison of two jobs, a gallery of filters, and their numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
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
from workers.tracking.run_log import GALLERY_FILE, RunLog

BROWSER = next((path for name in ("chromium", "google-chrome", "chromium-browser") if (path := shutil.which(name))), "")
PAGE_SECONDS = 60
"""Time in which a page is drawn, by a clock of the browser that stands still while a request is not answered."""
LIMIT_SECONDS = 240
"""Real time for it, on a machine that does much else."""
TRAINING = "workflowType=machine_learning"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not BROWSER, reason="no Chromium"),
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
    now = time.time()
    ledger.begin_sweep(StoredPlan.of("shown", "laptop", None, specs, frozenset(), Resources()), now)
    (folder / GALLERY_FILE).parent.mkdir(parents=True)
    Image.new("RGB", (60, 40), (200, 30, 30)).save(folder / GALLERY_FILE)
    runs = []
    for number, spec in enumerate(specs):
        record = ledger.add(spec, "shown", now)
        ledger.move(spec.key, JobState.RUNNING, now)
        order = WorkOrder(spec=spec, run_id=record.run_id, attempt=1, tracking_uri="", cache_dir="", checkpoint_dir="")
        if number < 2:
            result = result_of(order).model_copy(update={"metrics": metrics(0.91, 0.1234567 - number / 100)})
            assert result.metrics is not None
            log = RunLog(settings.store_uri, record.run_id, 1)
            log.log_spec(spec)
            log.log_outcome((), result.metrics, folder)
            ledger.move(spec.key, JobState.SUCCEEDED, now, reason=StopReason.FINISHED, result=result)
        else:
            failure = Failure(kind="Diverged", message="the loss became infinite")
            result = result_of(order, StopReason.DIVERGED).model_copy(update={"failure": failure})
            ledger.move(spec.key, JobState.FAILED, now, reason=StopReason.DIVERGED, result=result)
        runs.append(record.run_id)
    return tuple(runs)


@pytest.fixture(scope="module")
def served(new_home: Callable[[], Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`orch ui` of a store with three jobs."""
    settings = new_home()
    runs = filled(settings, tmp_path_factory.mktemp("files"))
    client = store.open_client(settings)
    experiment = store.experiment_of(client, settings.store_uri).experiment_id
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "ORCH_HOME": str(settings.home)}
    command = [sys.executable, "-m", "orchestrator.cli.main", "ui", "--json", "--port", str(free_port(0))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as ui:
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


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return an address's page as HTML, after its scripts have run."""
    profile = tmp_path_factory.mktemp("browser")

    def page(address: str) -> str:
        command = [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}", "--window-size=1440,900", f"--virtual-time-budget={PAGE_SECONDS * 1000}",
            "--dump-dom", address,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_SECONDS).stdout

    return page


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
    shown = cells(look(f"{served.base}#/compare-runs?runs={runs}&experiments={experiments}&{TRAINING}"))
    names = shown.index("Run Name:")
    assert shown[names + 1 : names + 3] == ["voc-cat alexnet ordinary", "voc-cat alexnet interpretable"]
    assert ["0.124", "0.114"] in [shown[at : at + 2] for at in range(len(shown))]


def test_the_gallery_of_filters_is_a_picture_of_the_page(served: Served, look: Callable[[str], str]) -> None:
    where = f"#/experiments/{served.experiment}/runs/{served.runs[1]}/artifacts/{GALLERY_FILE}"
    page = look(f"{served.base}{where}?{TRAINING}")
    assert "voc-cat alexnet interpretable" in cells(page)
    assert re.search(rf'<img alt="{GALLERY_FILE}" src="blob:', page)
