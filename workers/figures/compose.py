"""Which filters and images the figures of a network show, with their titles and labels.

Shape legend: N images   B chosen images   F filters   H = W = map side   S input side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from interp_model.explain.part_distribution import peak_density, relative_scores
from interp_model.network import Network
from schemas.categories import category_of
from schemas.job import EverythingSpec, FileWeights, JobSpec, PretrainSpec, RandomWeights
from schemas.order import ReportPhase
from workers.data.dataset import JobData
from workers.evaluation.evaluate import IMAGES_ARE, FilterRow
from workers.evaluation.peaks import Peaks
from workers.figures import canvas, montages, plots
from workers.figures.canvas import Bytes, Title
from workers.figures.receptive_fields import Care, filter_fields, image_fields, top_images, unit_centres
from workers.training.inputs import Indices, Inputs

SHOWN_FILTERS = 4
"""Default number of filters in a figure with one row per filter: half of them the best, half about the median."""
GALLERY_IMAGES, GALLERY_IMAGES_UNMASKED = 2, 4
PEAK_IMAGES = 12
MONTAGE_IMAGES = 8
HEAT_IMAGES = 8
MEAN_BATCH = 64


class Chosen(NamedTuple):
    """A filter that a figure shows."""

    row: FilterRow
    """Its row of the table."""
    kind: str
    """Why it is shown: `steadiest`, `strongest` or `median`."""


@dataclass(frozen=True)
class Studied:
    """A trained network with its data and measurements."""

    spec: JobSpec
    """The job."""
    network: Network
    """The trained network."""
    data: JobData
    """Images and annotations."""
    measured: Inputs
    """Inputs of the measured images."""
    peaks: Peaks
    """Peaks of all filters on the measured images."""
    rows: list[FilterRow]
    """Table of the filters."""
    fields: dict[Care, dict[int, torch.Tensor]] = field(default_factory=dict)
    """Receptive fields already computed, by effort and filter."""

    def chosen(self, count: int) -> list[Chosen]:
        """Choose the filters that figures show: half of them the best, and half about the median of all.

        Filters are judged by location instability, and by their mean peak where there are no landmarks. Those without
        it are left out.

        Args:
            count: number of filters; of an odd number, one more of the best.
        """
        if self.data.landmark_names:
            ranked = [row for row in steadiest_filters(self.rows) if row.location_instability is not None]
        else:
            firing = [row for row in self.rows if row.fires]
            ranked = sorted(firing, key=lambda row: (row.firing_rate < 0.5, -row.peak_mean))
        word = "steadiest" if self.data.landmark_names else "strongest"
        return [Chosen(row, word if is_best else "median") for row, is_best in best_and_median(ranked, count)]

    def choice(self, chosen: Sequence[Chosen]) -> str:
        """Return words for some filters, such as `2 steadiest and 2 median of 60 filters of conv6, by ...`."""
        kinds = [one.kind for one in chosen]
        words = " and ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        measure = "location instability" if self.data.landmark_names else "mean peak"
        return (
            f"{words} of {len(self.rows)} filters of {self.network.top_layer}, by {measure} on "
            f"{len(self.data.measured)} images"
        )

    def title(self, what: str) -> Title:
        """Return the title of a figure that shows `what`."""
        return Title(subject(self.spec), what)


def subject(spec: JobSpec, verb: str = "") -> str:
    """Return the first line of a title: the job, the kind of its images and the origin of its weights.

    Args:
        spec: the job.
        verb: prefix of the kind of images, such as `trained on `, if the figure shows other images.
    """
    parts = [spec.title, verb + IMAGES_ARE[spec.data.images]]
    if isinstance(spec.weights, RandomWeights):
        parts.append("random initial weights")
    elif isinstance(spec.weights, PretrainSpec) and spec.weights.data.images != spec.data.images:
        parts.append(f"pre-trained on {IMAGES_ARE[spec.weights.data.images]}")
    elif isinstance(spec.weights, EverythingSpec):
        parts.append("pre-trained on everything labelled")
    elif isinstance(spec.weights, FileWeights):
        parts.append(f"weights from {spec.weights.label or 'a file'}")
    return " · ".join(parts)


def steadiest_filters(rows: Sequence[FilterRow]) -> list[FilterRow]:
    """Sort filters by location instability, lowest first; filters that fire on fewer than half of the images last."""
    return sorted(rows, key=lambda row: (row.firing_rate < 0.5, row.location_instability or 0.0))


def best_and_median(ranked: Sequence[FilterRow], count: int) -> list[tuple[FilterRow, bool]]:
    """Choose the first rows and those about the middle, half of each; none twice.

    Args:
        ranked: rows, best first.
        count: number of rows.

    Returns:
        Rows and whether they are of the first.
    """
    middle = count // 2
    best = count - middle
    start = max(best, (len(ranked) - middle) // 2)
    return [(row, True) for row in ranked[:best]] + [(row, False) for row in ranked[start : start + middle]]


def usual_place(on: Mapping[str, float | None], near: Mapping[str, float | None]) -> str:
    """Return where on the animal a filter peaks most often, such as `on head 81%`; empty if unknown."""
    for word, shares in (("on", on), ("near", near)):
        known = {name: share for name, share in shares.items() if share is not None}
        if known:
            name = max(known, key=known.__getitem__)
            return f"{word} {name.replace('_', ' ')} {known[name]:.0%}"
    return ""


def label_of(chosen: Chosen, spec: JobSpec) -> str:
    """Return the label of a filter: number and kind, location instability, category and usual place, one per line."""
    row = chosen.row
    category = "" if spec.is_single else category_of(row.category).label
    lines = (
        f"{chosen.kind}: filter {row.filter}",
        "" if row.location_instability is None else f"instability {row.location_instability:.3f}",
        category,
        usual_place(row.peaks_on, row.peaks_near),
    )
    return "\n".join(line for line in lines if line)


def draw_gallery(studied: Studied, filters: int, care: Care | None, report: ReportPhase) -> Figure | None:
    """Draw Fig. 4 for the best and the median filters on their top images; None if there are no such filters.

    Args:
        studied: the network.
        filters: number of filters, one row each.
        care: effort of the receptive fields; None leaves their column out, and with it nearly all of the time.
        report: receives the progress.
    """
    chosen = studied.chosen(filters)
    if not chosen:
        return None
    fields = _fields(studied, chosen, care, report) if care else {}
    title = studied.title(f"{studied.choice(chosen)}; each on those that excite it most")
    return plots.draw_gallery([_strip(studied, one, fields.get(one.row.filter)) for one in chosen], title)


def draw_peaks(studied: Studied) -> Figure | None:
    """Draw the peaks of the best and the median filters on evenly spaced images; None if there are no such filters."""
    chosen = studied.chosen(SHOWN_FILTERS)
    if not chosen:
        return None
    names = [_peak_name(*one) for one in chosen]
    marked = marked_images(studied.data, studied.peaks, [one.row for one in chosen])
    title = studied.title(f"peaks on evenly spaced images: {studied.choice(chosen)}")
    return plots.draw_peaks(marked, names, title)


def _peak_name(row: FilterRow, kind: str) -> str:
    steady = row.location_instability
    return f"{kind}: filter {row.filter}" + ("" if steady is None else f" ({steady:.3f})")


def draw_fields(studied: Studied, filters: int, care: Care, report: ReportPhase) -> Figure | None:
    """Draw Fig. 5 for the best and the median filters on their top images; None if there are no such filters."""
    chosen = studied.chosen(filters)
    if not chosen:
        return None
    fields = _fields(studied, chosen, care, report)
    montage = []
    for one in chosen:
        row = one.row
        index_B = top_images(studied.peaks, row.filter, MONTAGE_IMAGES)
        found = image_fields(studied.network, studied.measured, index_B, row.filter, fields[row.filter])
        shown = [montages.Lit(*pair) for pair in zip(studied.data.measured.take(index_B), found, strict=True)]
        montage.append(montages.MontageRow(label_of(one, studied.spec), shown))
    title = studied.title(f"bright: receptive fields by occlusion; {studied.choice(chosen)}")
    return montages.draw_montage(montage, title)


def draw_heat(studied: Studied) -> Figure | None:
    """Draw Fig. 6 for all filters that fire; None if none does."""
    data, peaks = studied.data, studied.peaks
    if not bool((peaks.score_NF > 0).any()):
        return None
    weight_NF = relative_scores(peaks.score_NF)
    side = studied.spec.model.input_size
    sigma = studied.network.receptive_field(studied.network.top_layer).stride / 2

    index_B = _evenly_spaced(len(data.measured), HEAT_IMAGES)
    # The highest value of a Gaussian, that of all filters at one place.
    at_one_place = 1 / (2 * np.pi * sigma**2)
    heat_BSS = (peak_density(peaks.pixel_NF2[index_B], weight_NF[index_B], side, sigma) / at_one_place).numpy()
    shown = [montages.Heated(*pair) for pair in zip(data.measured.take(index_B), heat_BSS, strict=True)]
    # The peaks on all images are treated as those of one image with N * F filters.
    density_1SS = peak_density(peaks.pixel_NF2.view(1, -1, 2), weight_NF.view(1, -1), side, sigma)
    heat_SS = (density_1SS / at_one_place)[0].numpy()
    whole = montages.Heated(_mean_image(data), heat_SS)
    shares, what = _shares(studied.rows)
    title = studied.title(
        f"where the peaks of all {len(studied.rows)} filters of {studied.network.top_layer} lie, on "
        f"{len(data.measured)} images"
    )
    return montages.draw_heat(whole, shown, shares, what, title)


def _mean_image(data: JobData) -> Bytes:
    total_SS3 = sum(
        data.measured.take(np.arange(start, min(start + MEAN_BATCH, len(data.measured)))).sum(axis=0, dtype=np.float64)
        for start in range(0, len(data.measured), MEAN_BATCH)
    )
    return np.asarray(total_SS3 / len(data.measured), dtype=np.uint8)


def marked_images(data: JobData, peaks: Peaks, rows: Sequence[FilterRow]) -> list[plots.Marked]:
    """Return evenly spaced measured images with peaks and landmarks. The choice does not depend on the peaks."""
    index_B = _evenly_spaced(len(data.measured), PEAK_IMAGES)
    filters = [row.filter for row in rows]
    fires_BF = (peaks.score_NF[index_B][:, filters] > 0).numpy()
    peak_BF2 = np.where(fires_BF[:, :, None], peaks.pixel_NF2[index_B][:, filters].numpy(), np.nan)
    return [
        plots.Marked(image, peak_BF2[b], _visible(data, int(index_B[b])))
        for b, image in enumerate(data.measured.take(index_B))
    ]


def _fields(studied: Studied, chosen: Sequence[Chosen], care: Care, report: ReportPhase) -> dict[int, torch.Tensor]:
    """Return the receptive field of each filter, by number; of several figures they are computed once."""
    wanted = [one.row.filter for one in chosen]
    known = studied.fields.setdefault(care, {})
    if missing := [number for number in wanted if number not in known]:
        known |= filter_fields(studied.network, studied.measured, studied.peaks, missing, care, report)
    return known


@torch.no_grad()
def _strip(studied: Studied, chosen: Chosen, field_PP: torch.Tensor | None) -> plots.FilterStrip:
    row = chosen.row
    network, measured = studied.network, studied.measured
    network.eval()
    has_masks = network.masks
    index_B = top_images(studied.peaks, row.filter, GALLERY_IMAGES if has_masks else GALLERY_IMAGES_UNMASKED)
    map_BHW = network.forward_head(measured.as_they_are(index_B)).maps[network.top_layer][:, row.filter].cpu()
    mask_BHW = network.bank_PHW.cpu()[studied.peaks.unit_NF[index_B, row.filter]] if has_masks else None
    masked_BHW = map_BHW if mask_BHW is None else map_BHW * mask_BHW
    field_B = None if field_PP is None else image_fields(network, measured, index_B, row.filter, field_PP)
    centre_H = unit_centres(network).numpy()
    shown = [
        plots.Shown(
            image,
            map_BHW[b].numpy(),
            None if mask_BHW is None else mask_BHW[b].numpy(),
            canvas.laid_over(masked_BHW[b].numpy(), centre_H, len(image)),
            None if field_B is None else field_B[b],
        )
        for b, image in enumerate(studied.data.measured.take(index_B))
    ]
    return plots.FilterStrip(label_of(chosen, studied.spec), shown)


def _shares(rows: Sequence[FilterRow]) -> tuple[dict[str, float], str]:
    """Return the mean over filters of the peak shares, by part if known, otherwise by landmark; and a caption."""
    kinds: tuple[tuple[str, Callable[[FilterRow], dict[str, float | None]]], ...] = (
        ("peaks on each part, mean over filters", lambda row: row.peaks_on),
        ("peaks nearest to each landmark, mean over filters", lambda row: row.peaks_near),
    )
    for what, of in kinds:
        columns = {name: [share for row in rows if (share := of(row).get(name)) is not None] for name in of(rows[0])}
        shares = {name: fmean(column) for name, column in columns.items() if column}
        if shares:
            return shares, what
    return {}, ""


def _evenly_spaced(images: int, count: int) -> Indices:
    return np.linspace(0, images - 1, min(count, images)).round().astype(np.int64)


def _visible(data: JobData, index: int) -> dict[str, tuple[float, float]]:
    # Without landmarks there is one column of NaN, and no name.
    points = zip(data.landmark_names, data.measured.landmarks_NK2[index], strict=False)
    return {name: (float(row), float(column)) for name, (row, column) in points if not np.isnan(row)}
