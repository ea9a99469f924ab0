"""The figures in an HTML report: which jobs, side by side, and how small."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.ledger.artifacts import read_artifacts
from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.report.summary import VARIANTS
from orchestrator.settings import Settings
from schemas.categories import BY_ID

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST = 24
"""Networks with an ordinary and an interpretable form; some 250 kB each. More are spread out over the sweep."""
WIDTH, QUALITY = 1000, 70
"""Of a picture: pixels, and WebP's measure."""

CAPTIONS = {
    4: "Figure 4. Image, feature map, mask, masked map and receptive field",
    5: "Figure 5. Receptive fields at image resolution",
    6: "Figure 6. Where the peaks of all filters lie",
}


class Picture(NamedTuple):
    title: str
    """Of the job."""
    source: str
    """A data URI."""


class Plate(NamedTuple):
    caption: str
    pictures: list[Picture]


class Section(NamedTuple):
    """A category and backbone."""

    title: str
    plates: list[Plate]


class Gallery(NamedTuple):
    sections: tuple[Section, ...] = ()
    left_out: int = 0
    """Networks that it has no room for."""


NO_PICTURES = Gallery()


def chosen(jobs: Sequence[PlannedJob]) -> tuple[list[list[PlannedJob]], int]:
    """Finished jobs grouped by categories and backbone, the ordinary one first, and how many groups were left out.

    Whole pairs, and where there is none single jobs. Of several alike in these, such as seeds, the first.
    """
    groups: dict[tuple[tuple[str, ...], str, str], dict[str, PlannedJob]] = {}
    for job in jobs:
        if job.status is PlanStatus.DONE and job.record is not None:
            spec = job.spec
            group = groups.setdefault((spec.data.categories, spec.loss, spec.model.backbone), {})
            group.setdefault(spec.model.variant, job)
    whole = [group for group in groups.values() if len(group) == len(VARIANTS)] or list(groups.values())
    kept = [whole[round(i * (len(whole) - 1) / (MOST - 1))] for i in range(MOST)] if len(whole) > MOST else whole
    return [[group[variant] for variant in VARIANTS if variant in group] for group in kept], len(whole) - len(kept)


def read_gallery(settings: Settings, client: MlflowClient, jobs: Sequence[PlannedJob]) -> Gallery:
    """The figures that the runs of a sweep's jobs keep, as small pictures."""
    groups, left_out = chosen(jobs)
    sections = [Section(_title(group[0]), _plates(settings, client, group)) for group in groups]
    return Gallery(tuple(section for section in sections if section.plates), left_out)


def _title(job: PlannedJob) -> str:
    labels = [BY_ID[name].label for name in job.spec.data.categories]
    what = labels[0] if job.spec.is_single else f"{len(labels)} categories {job.spec.loss}"
    return f"{what}, {job.spec.model.backbone}"


def _plates(settings: Settings, client: MlflowClient, group: Sequence[PlannedJob]) -> list[Plate]:
    from workers.tracking.run_log import FIGURE_FILES

    names = list(FIGURE_FILES.values())
    found = [
        (job, read_artifacts(settings, client, job.record.run_id, "figures", names)) for job in group if job.record
    ]
    plates = [
        Plate(CAPTIONS[number], [Picture(job.spec.title, _small(files[name])) for job, files in found if name in files])
        for number, name in FIGURE_FILES.items()
    ]
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
