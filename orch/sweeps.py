"""Sweeps and their jobs as Python objects."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from orchestrator.execution.progress import open_display
from orchestrator.execution.selection import one_job
from orchestrator.ledger import store
from orchestrator.ledger.artifacts import read_artifact
from orchestrator.ledger.records import JobRecord
from orchestrator.planning.request import SweepRequest
from orchestrator.planning.sweep_file import read_sweep_file
from orchestrator.services import figures, sweeps, tables
from orchestrator.services.choices import FIGURES
from orchestrator.services.requests import make_request
from orchestrator.services.sweeps import Plan
from orchestrator.settings import Settings
from schemas.base import explain
from schemas.errors import SpecError, StoreError
from schemas.grids import GRIDS
from schemas.job import JobSpec
from schemas.results import JobMetrics
from schemas.sweep import SweepSpec

if TYPE_CHECKING:
    from PIL.Image import Image

    from interp_model.trained import TrainedNetwork

What = str | Path | Mapping[str, Any]
"""A built-in grid's name, the path of a sweep file, or the fields of one."""


@dataclass(frozen=True)
class Job:
    """A job of a sweep, as it was in the store when it was looked up."""

    record: JobRecord
    settings: Settings

    @property
    def key(self) -> str:
        """Identity of the job."""
        return self.record.key

    @property
    def title(self) -> str:
        """Name for people."""
        return self.record.title

    @property
    def state(self) -> str:
        """State in the store, such as `succeeded`."""
        return str(self.record.state)

    @property
    def spec(self) -> JobSpec:
        """Everything that decides its result.

        Raises:
            StoreError: another version of orch planned the job.
        """
        return figures.spec_of(self.record)

    @property
    def metrics(self) -> JobMetrics | None:
        """What was measured; None unless the job has succeeded."""
        return self.record.result.metrics if self.record.result else None

    def network(self) -> TrainedNetwork:
        """Load the trained network.

        Raises:
            SpecError: the job has not succeeded.
            StoreError: its checkpoint is missing or damaged, or another version of orch planned the job.
        """
        from interp_model.trained import TrainedNetwork

        found = figures.load_network(self.settings, self.record)
        return TrainedNetwork(found.network, found.mean_SS3, self.spec.output_labels, self.spec.loss)

    def predict(self, image: str | Path | Image, box: Sequence[float] | None = None) -> dict[str, float]:
        """Classify a photograph.

        Args:
            image: a file or a picture.
            box: `x0, y0, x1, y1` of the animal in pixels; None takes the whole picture.

        Returns:
            The probability of each output by its label.

        Raises:
            SpecError: the job has not succeeded, or the box is not in the picture.
            DataError: the file cannot be read.
            StoreError: the checkpoint is missing or damaged.
        """
        import torch

        from workers.figures.photograph import cut, open_photograph, parse_box, within

        network = self.network()
        picture = open_photograph(Path(image)) if isinstance(image, str | Path) else image.convert("RGB")
        where = within(parse_box(",".join(map(str, box))) if box is not None else None, picture)
        pixels_SS3 = torch.from_numpy(cut(picture, where, network.input_size, network.input_size).copy())
        image_13SS = pixels_SS3.permute(2, 0, 1)[None].to(network.mean_SS3.device) / 255
        with torch.no_grad():
            (probability_O,) = network.probabilities(image_13SS).tolist()
        return dict(zip(network.labels, probability_O, strict=True))

    def filters(self) -> pd.DataFrame:
        """Return the table of the measured layer's filters, a row each: docs/measures.md explains the columns.

        Raises:
            SpecError: the job has not succeeded.
            StoreError: its run has no table.
        """
        from workers.tracking.run_log import FILTERS_FILE

        figures.finished(self.record, self.settings)
        client = store.open_client(self.settings)
        table = read_artifact(self.settings, client, self.record.run_id, FILTERS_FILE)
        if table is None:
            raise StoreError(f"The run of {self.title} ({self.key}) has no {FILTERS_FILE}. Run `orch fsck`.")
        return pd.read_csv(io.BytesIO(table))

    def figure(self, number: int, out: str | Path, data_root: str | Path | None = None) -> Path:
        """Write one of the paper's figures of the job as a PNG file, such as 4: filters with their images and masks.

        Args:
            number: 4, 5 or 6.
            out: the file.
            data_root: folder of the photographs; None takes that of the job's sweep.

        Raises:
            SpecError: the figure would be empty, or the file cannot be written.
            StoreError: the checkpoint is missing or damaged.
            DataError: the job's images are missing or have changed.
        """
        if number not in FIGURES:
            raise SpecError(f"Figure {number} cannot be drawn. Valid: {', '.join(map(str, FIGURES))}.")
        root = Path(data_root) if data_root is not None else None
        (drawn,) = figures.draw_figures(
            self.settings, self.key, [number], Path(out), figures.DrawOptions(), data_root=root,
            report=lambda phase: None,
        )  # fmt: skip
        return drawn.path


@dataclass(frozen=True)
class Sweep:
    """A sweep of the store. Every call reads the store anew."""

    name: str
    settings: Settings

    @property
    def counts(self) -> dict[str, int]:
        """Number of jobs by status, such as `{"done": 7}`.

        Raises:
            StoreError: the store has no such sweep.
        """
        return dict(sweeps.sweep_status(self.settings, self.name, up_to=0).counts)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per job: its name and state, the fields of its spec by dotted name, and its metrics.

        Raises:
            StoreError: the store has no such sweep.
        """
        return tables.sweep_frame(self.settings, self.name)

    def jobs(self) -> list[Job]:
        """Return the jobs that have begun, in the order of the plan.

        Raises:
            StoreError: the store has no such sweep.
        """
        found = sweeps.sweep_status(self.settings, self.name).jobs
        return [Job(job.record, self.settings) for job in found if job.record is not None]

    def job(self, wanted: str) -> Job:
        """Return one job that has begun.

        Args:
            wanted: its key, the start of it, its title, or words of its title.

        Raises:
            SpecError: no job or several jobs fit; the message lists them.
        """
        jobs = {job.key: job for job in self.jobs()}
        return jobs[one_job(wanted, {key: (job.title, self.name) for key, job in jobs.items()})]


def sweep(name: str, *, home: str | Path | None = None) -> Sweep:
    """Return a sweep of the store.

    Args:
        name: its name.
        home: ORCH_HOME of the store; None takes that of the environment.

    Raises:
        StoreError: the store has no such sweep.
    """
    found = Sweep(name, _settings(home))
    found.counts  # noqa: B018 - raises for an unknown name
    return found


def plan(what: What, *, home: str | Path | None = None, **options: Any) -> Plan:
    """Return which jobs a sweep would run, without changing anything.

    Args:
        what: a built-in grid's name, the path of a sweep file, or the fields of one.
        home: ORCH_HOME of the store; None takes that of the environment.
        options: `name`, `profile`, `categories`, `backbones`, `variants`, `datasets`, `sets` (field -> value),
            `weights` and `data_root`, as on the command line of `orch plan`.

    Raises:
        SpecError: the sweep cannot be used as written.
        DataError: images are missing, broken or too few.
    """
    settings = _settings(home)
    return sweeps.plan_sweep(settings, _request(settings, what, **options))


def run(what: What, *, home: str | Path | None = None, workers: int | None = None, **options: Any) -> Sweep:
    """Run the unfinished jobs of a sweep, with its progress on standard error. Finished jobs are not repeated.

    Args:
        what: a built-in grid's name, the path of a sweep file, or the fields of one.
        home: ORCH_HOME of the store; None takes that of the environment.
        workers: jobs to run at a time; None takes one per GPU, else per core.
        options: as of `plan`.

    Raises:
        SweepIncomplete: some jobs did not succeed.
        OrchError: the sweep cannot run; its subclasses say why.
    """
    settings = _settings(home)
    outcome = sweeps.run_sweep(
        settings, _request(settings, what, **options), open_display(time.monotonic), workers=workers
    )
    sweeps.raise_if_incomplete(outcome, settings.resume_command(outcome.name))
    return Sweep(outcome.name, settings)


def _settings(home: str | Path | None) -> Settings:
    return Settings() if home is None else Settings(home=Path(home))


def _request(settings: Settings, what: What, **options: Any) -> SweepRequest:
    file = Path(what) if isinstance(what, str | Path) and str(what) not in GRIDS else None
    return make_request(settings, _sweep_spec(what, file), file, **options)


def _sweep_spec(what: What, file: Path | None) -> SweepSpec:
    if file is not None:
        return read_sweep_file(file)
    if not isinstance(what, Mapping):
        return SweepSpec(grid=str(what))
    try:
        return SweepSpec.model_validate(what)
    except ValidationError as error:
        raise explain(error, "The sweep", SweepSpec) from error
