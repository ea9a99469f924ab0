"""Decides which figures an HTML report shows, in which order and at which size."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.ledger.artifacts import read_artifacts
from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.report.summary import VARIANTS
from orchestrator.settings import Settings
from schemas.categories import category_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_NETWORKS = 24
"""Largest number of networks shown, each in both variants (about 250 kB). Of more, an evenly spaced selection."""
WIDTH, QUALITY = 1000, 70
"""Largest width of a figure in pixels, and its WebP quality (0 to 100)."""

CAPTIONS = {
    4: "Figure 4. Filters on the images that excite each most",
    5: "Figure 5. Receptive fields at image resolution",
    6: "Figure 6. Where the peaks of all filters lie",
}


class Picture(NamedTuple):
    """A figure of one job."""

    title: str
    """Title of the job."""
    source: str
    """A data URI."""


class Plate(NamedTuple):
    """Figures of one kind, side by side."""

    caption: str
    pictures: list[Picture]


class Section(NamedTuple):
    """The figures of one category and backbone."""

    title: str
    plates: list[Plate]


class Gallery(NamedTuple):
    """All figures of a report."""

    sections: tuple[Section, ...] = ()
    left_out: int = 0
    """Number of networks beyond `MAX_NETWORKS`."""


EMPTY_GALLERY = Gallery()


def choose_jobs(jobs: Sequence[PlannedJob]) -> tuple[list[list[PlannedJob]], int]:
    """Choose the jobs whose figures are shown.

    Args:
        jobs: the jobs of a sweep.

    Returns:
        Finished jobs grouped by categories, loss and backbone, the ordinary one first, and the number of groups left
        out. Groups with both variants if there are any, otherwise all. Of several seeds, the first.
    """
    groups: dict[tuple[tuple[str, ...], str, str], dict[str, PlannedJob]] = {}
    for job in jobs:
        if job.status is PlanStatus.DONE and job.record is not None:
            spec = job.spec
            group = groups.setdefault((spec.data.categories, spec.loss, spec.model.backbone), {})
            group.setdefault(spec.model.variant, job)
    shown = [group for group in groups.values() if len(group) == len(VARIANTS)] or list(groups.values())
    spacing = (len(shown) - 1) / (MAX_NETWORKS - 1)
    kept = [shown[round(i * spacing)] for i in range(MAX_NETWORKS)] if len(shown) > MAX_NETWORKS else shown
    return [[group[variant] for variant in VARIANTS if variant in group] for group in kept], len(shown) - len(kept)


def read_gallery(settings: Settings, client: MlflowClient, jobs: Sequence[PlannedJob]) -> Gallery:
    """Read the figures of a sweep's jobs from their MLflow runs, and scale them down.

    Args:
        settings: where the store is.
        client: a client of that store.
        jobs: the jobs of the sweep.
    """
    groups, left_out = choose_jobs(jobs)
    sections = [Section(_title(group[0]), _plates(settings, client, group)) for group in groups]
    return Gallery(tuple(section for section in sections if section.plates), left_out)


def _title(job: PlannedJob) -> str:
    labels = [category_of(name).label for name in job.spec.data.categories]
    what = labels[0] if job.spec.is_single else f"{len(labels)} categories {job.spec.loss}"
    return f"{what}, {job.spec.model.backbone}"


def _plates(settings: Settings, client: MlflowClient, group: Sequence[PlannedJob]) -> list[Plate]:
    from workers.tracking.run_log import FIGURE_FILES, GALLERY_FILE

    names = [GALLERY_FILE, *FIGURE_FILES.values()]
    found = [
        (job, read_artifacts(settings, client, job.record.run_id, "figures", names)) for job in group if job.record
    ]
    plates = []
    for number, name in FIGURE_FILES.items():
        shown = [(job, files.get(name) or (files.get(GALLERY_FILE) if number == 4 else None)) for job, files in found]
        plates.append(Plate(CAPTIONS[number], [Picture(job.spec.title, _small(png)) for job, png in shown if png]))
    return [plate for plate in plates if plate.pictures]


def _small(png: bytes) -> str:
    from PIL import Image

    file = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        shown = picture.convert("RGB")
        width = min(WIDTH, shown.width)
        size = width, max(1, round(shown.height * width / shown.width))
        shown.resize(size, Image.Resampling.LANCZOS).save(file, "WEBP", quality=QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
