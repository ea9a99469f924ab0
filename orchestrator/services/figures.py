"""Writes the paper's figures of a finished job, and explains single photographs with its network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.ledger import opening, store
from orchestrator.ledger.artifacts import fetch_checkpoint, local_artifact, read_artifact
from orchestrator.ledger.base import LedgerReader
from orchestrator.ledger.records import JobRecord
from orchestrator.planning.resolver import check_all_data
from orchestrator.services import jobs
from orchestrator.settings import Settings
from schemas.categories import find_categories
from schemas.errors import SpecError, StoreError
from schemas.job import NAMING, FilterLossSpec, JobSpec
from schemas.lifecycle import JobState
from schemas.order import ReportPhase
from schemas.results import CheckpointPointer

if TYPE_CHECKING:
    from orchestrator.ledger.home_client import HomeClient
    from workers.data.pushed.pulling import SharedData
    from workers.figures.compose import Studied
    from workers.figures.explain import Explanation
    from workers.figures.restore import Restored


@dataclass(frozen=True)
class DrawOptions:
    """How figures are drawn. With the defaults, figures are copied from the job's run, or stored there once drawn."""

    filters: int | None = None
    """Rows of Figs. 4 and 5."""
    images: int | None = None
    """Images used per receptive field."""
    stride: float | None = None
    """Step of the occluding patch, as a fraction of the image's side."""
    again: bool = False
    """Draw figures that the run already has."""

    @property
    def is_usual(self) -> bool:
        """True if the figures are those that are stored in the run."""
        return self.filters is None and self.images is None and self.stride is None


@dataclass(frozen=True)
class Drawn:
    """A figure that was written."""

    figure: int
    path: Path
    jobs: tuple[str, ...]
    """Titles of the jobs that the figure shows."""
    from_run: bool
    """True if the figure was copied from the jobs' runs."""


@dataclass(frozen=True)
class Explained:
    """A photograph, explained by the network of one job."""

    key: str
    """Key of the job."""
    image: Path
    found: Explanation
    path: Path | None
    """File of the picture; None if none was requested."""


def draw_figures(
    settings: Settings, wanted: str, figures: Sequence[int], out: Path | None, how: DrawOptions, *,
    data_root: Path | None, report: ReportPhase,
) -> list[Drawn]:  # fmt: skip
    """Write some of the paper's figures of a finished job as PNG files.

    Args:
        wanted: the job's key, the start of it, or its title.
        figures: numbers of the figures, out of `choices.FIGURES`.
        out: the file; None names it after the job. Several figures get their numbers appended.
        how: how to draw.
        data_root: folder of the photographs; None takes that of the job's sweep.
        report: called with the current phase.

    Raises:
        SpecError: the job is unknown, ambiguous or has not succeeded; or the file cannot be written.
        StoreError: the job's checkpoint is missing or damaged, or another version of orch planned the job.
        DataError: the job's images are missing or have changed.
    """
    ledger = opening.open_reader(settings)
    record = finished(jobs.find_job(settings, wanted), settings)
    paths = _paths(out, record, figures)
    drawn: list[Drawn] = []
    known: dict[str, _JobFigures] = {}
    for figure in figures:
        members = [record]
        if figure == 5 and (twin := counterpart(record, ledger.jobs())) is not None:
            members = sorted([record, twin], key=lambda member: _variant(member) == "ordinary")
        for member in members:
            known.setdefault(member.key, _JobFigures(settings, ledger, member, how, data_root, report))
        found = [known[member.key].figure(figure) for member in members]
        _write(paths[figure], [png for png, _ in found])
        drawn.append(Drawn(figure, paths[figure], tuple(m.title for m in members), all(logged for _, logged in found)))
    return drawn


def explain(
    settings: Settings, wanted: str, image: Path, out: Path | None, *, box: str | None, category: str | None,
    data_root: Path | None, report: ReportPhase,
) -> Explained:  # fmt: skip
    """Compute where the filters of a job's network fire on a photograph, and what each contributes to the logit.

    Args:
        wanted: the job's key, the start of it, or its title.
        image: the photograph.
        out: PNG file of the picture; None draws none.
        box: `x0,y0,x1,y1` of the animal in pixels; None takes the whole image.
        category: the category whose logit is explained; None takes the most probable.
        data_root: folder of the photographs; None takes that of the job's sweep.
        report: called with the current phase.

    Raises:
        SpecError: the job is unknown, ambiguous or has not succeeded; or the box or the category is invalid.
        DataError: the photograph cannot be read.
        StoreError: the job's checkpoint is missing or damaged.
    """
    ledger = opening.open_reader(settings)
    record = finished(jobs.find_job(settings, wanted), settings)
    spec = spec_of(record)
    chosen = _one_category(category, spec)
    if out is not None:
        _check_target(out)
    from workers.figures.photograph import open_photograph, parse_box, within

    picture = open_photograph(image)
    cut = within(parse_box(box) if box else None, picture)
    from workers.figures import explain as explaining

    job = _JobFigures(settings, ledger, record, DrawOptions(), data_root, report)
    network, mean_SS3 = job.network()
    found = explaining.explain(
        spec, network, mean_SS3, picture, cut, places=job.places(), category=chosen, report=report
    )
    if out is not None:
        from workers.data.disk_files import printable
        from workers.figures.canvas import save
        from workers.figures.explanation_plot import draw_explanation

        save(draw_explanation(found, picture, printable(image.name)), out)
    return Explained(record.key, image, found, out)


def load_network(settings: Settings, record: JobRecord) -> Restored:
    """Load a finished job's network.

    Raises:
        SpecError: the job has not succeeded.
        StoreError: its checkpoint is missing or damaged, or another version of orch planned the job.
    """
    job = _JobFigures(
        settings, opening.open_reader(settings), finished(record, settings), DrawOptions(), None, lambda phase: None
    )
    return job.network()


def finished(record: JobRecord, settings: Settings) -> JobRecord:
    """Return the record of a job that has a final network.

    Raises:
        SpecError: the job has not succeeded.
    """
    if record.state is not JobState.SUCCEEDED:
        raise SpecError(
            f"{record.title} ({record.key}) is {record.state.value}, so it has no final network yet. "
            f"`orch status {record.sweep}` shows its progress; `{settings.resume_command(record.sweep)}` continues "
            "its sweep."
        )
    return record


def spec_of(record: JobRecord) -> JobSpec:
    """Parse the spec of a job.

    Raises:
        StoreError: another version of orch wrote it.
    """
    try:
        return JobSpec.model_validate(record.fields)
    except ValidationError as error:
        raise StoreError(
            f"{record.title} ({record.key}) was planned by another version of orch ({error.error_count()} fields "
            "differ), so its network cannot be rebuilt. Run its sweep again under a new `--name`."
        ) from error


def counterpart(record: JobRecord, records: Mapping[str, JobRecord]) -> JobRecord | None:
    """The finished job that differs from `record` only in its variant, ordinary or interpretable.

    Returns:
        Of several, the one with the default filter loss; None if no such job has finished.
    """
    alike = [
        other
        for other in records.values()
        if other.state is JobState.SUCCEEDED
        and _variant(other) != _variant(record)
        and _without_variant(other) == _without_variant(record)
    ]
    usual = FilterLossSpec().model_dump(mode="json")
    return min(alike, key=lambda other: (other.fields.get("filter_loss") not in (None, usual), other.key), default=None)


def _variant(record: JobRecord) -> str:
    return str(record.fields["model"]["variant"])


def _without_variant(record: JobRecord) -> dict[str, Any]:
    model = {name: value for name, value in record.fields["model"].items() if name not in ("variant", "mask")}
    others = ("model", "filter_loss", *NAMING)
    rest = {name: value for name, value in record.fields.items() if name not in others}
    return {**rest, "model": model}


class _JobFigures:
    """The figures of one job: copied from its run, or drawn from its network, which is loaded once."""

    def __init__(
        self,
        settings: Settings,
        ledger: LedgerReader,
        record: JobRecord,
        how: DrawOptions,
        data_root: Path | None,
        report: ReportPhase,
    ) -> None:
        self._settings, self._ledger, self._record = settings, ledger, record
        self._how, self._data_root, self._report = how, data_root, report

    @cached_property
    def _client(self) -> HomeClient:
        """Opened at its first use: an explanation with local files needs no MLflow, whose import takes seconds."""
        return store.open_client(self._settings)

    def figure(self, number: int) -> tuple[bytes, bool]:
        """The figure as PNG, and whether it was copied from the run."""
        from workers.tracking.run_log import FIGURE_FILES

        name = FIGURE_FILES[number]
        if self._how.is_usual and not self._how.again:
            logged = read_artifact(self._settings, self._client, self._record.run_id, name)
            if logged is not None:
                return logged, True
        with TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            self._draw(number, path)
            if self._how.is_usual:
                with store.reaching(self._settings.store_uri):
                    self._client.log_artifact(self._record.run_id, str(path), str(Path(name).parent))
            return path.read_bytes(), False

    def _draw(self, number: int, path: Path) -> None:
        from workers.figures.compose import SHOWN_FILTERS
        from workers.figures.receptive_fields import Care
        from workers.figures.restore import draw_figure

        usual = Care()
        care = Care(self._how.images or usual.images, self._how.stride or usual.stride)
        if not draw_figure(self._studied, number, self._how.filters or SHOWN_FILTERS, care, self._report, path):
            raise SpecError(
                f"Fig. {number} of {self._record.title} would be empty: none of its filters fires on images with "
                "landmarks. `orch ui` shows its training curves."
            )

    @cached_property
    def _studied(self) -> Studied:
        from workers.figures.restore import study

        spec, checkpoint = spec_of(self._record), self.checkpoint()
        return study(
            spec, self._record.key, checkpoint, self._settings.cache_dir, self.checked_data_root(), self._report,
            self.shared_data(),
        )  # fmt: skip

    def network(self) -> Restored:
        """The network, and the mean image of its training set."""
        from workers.figures.restore import restore_with_mean

        return restore_with_mean(
            spec_of(self._record), self._record.key, self.checkpoint(), self._settings.cache_dir,
            self.checked_data_root, self._report, self.shared_data(),
        )  # fmt: skip

    def shared_data(self) -> SharedData | None:
        """The object store, from which photographs are pulled that this machine lacks; None without one."""
        from workers.data.pushed.pulling import SharedData

        return SharedData.at(
            self._settings.object_store, self._settings.store_patience_minutes * 60, self._settings.cache_gb
        )

    def checkpoint(self) -> CheckpointPointer:
        """The job's final checkpoint, fetched from its run if this machine does not have it.

        Raises:
            StoreError: the job has no checkpoint, or the checkpoint is missing or damaged.
        """
        from workers.checkpoints.loading import find_checkpoint

        pointer = self._record.result.checkpoint if self._record.result else None
        if pointer is None:
            raise StoreError(
                f"{self._record.title} ({self._record.key}) has no checkpoint. Run `orch fsck` to find out why."
            )

        def fetch(final: CheckpointPointer, folder: Path) -> Path | None:
            return fetch_checkpoint(self._settings, self._client, self._record.run_id, final, folder)

        self._settings.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        return find_checkpoint(pointer, self._settings.checkpoint_dir, self._record.key, fetch)

    def checked_data_root(self) -> Path | None:
        """Folder of the job's photographs: the given one, else that of its sweep.

        Raises:
            DataError: the job's images are missing or have changed.
        """
        sweep = self._ledger.sweep(self._record.sweep)
        planned = sweep.plan.data_root if sweep and sweep.plan else None
        given = self._data_root or self._settings.data_root
        root = str(given.expanduser().resolve()) if given else planned
        check_all_data(self._settings, [spec_of(self._record)], root)
        return Path(root) if root else None

    def places(self) -> dict[int, str]:
        """Where on the animal each filter usually peaks, by filter; empty for jobs of versions that did not log it."""
        from workers.outcome import read_places
        from workers.tracking.run_log import FILTERS_FILE

        file = local_artifact(self._ledger, self._record.run_id, FILTERS_FILE)
        table = (
            file.read_bytes()
            if file is not None
            else read_artifact(self._settings, self._client, self._record.run_id, FILTERS_FILE)
        )
        return read_places(table.decode()) if table else {}


def _one_category(word: str | None, spec: JobSpec) -> str | None:
    """Id of the category that a word names; of several, the one that the network was trained on."""
    if word is None:
        return None
    named = [category.id for category in find_categories(word)]
    return next((name for name in named if name in spec.data.categories), named[0])


def _paths(out: Path | None, record: JobRecord, figures: Sequence[int]) -> dict[int, Path]:
    """The file of each figure. Several files share the stem of `out` and get the figure's number appended."""
    start = out or Path(f"{_file_name(record.title)}.png")
    _check_target(start)
    if out is not None and len(figures) == 1:
        return {figures[0]: out}
    return {figure: start.with_name(f"{start.stem}-figure{figure}.png") for figure in figures}


def _file_name(title: str) -> str:
    return "-".join("".join(c if c.isalnum() or c in "-_." else " " for c in title).split())


def _check_target(out: Path) -> None:
    """Check that a PNG file can be written.

    Raises:
        SpecError: the suffix is not .png, or the folder does not exist or cannot be written to.
    """
    if out.suffix.lower() != ".png":
        raise SpecError(f"Pictures are PNG files, but `--out` is {out}. Name a file that ends in .png.")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise SpecError(
            f"The folder {out.parent} does not exist or cannot be written to. Create it, or choose another `--out`."
        )


def _write(path: Path, pngs: list[bytes]) -> None:
    from workers.figures.canvas import one_below_the_other

    path.write_bytes(pngs[0] if len(pngs) == 1 else one_below_the_other(pngs))
