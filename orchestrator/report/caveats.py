"""Decides how a report describes its numbers, and which caveats apply to comparing them with the published ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from orchestrator.planning.request import BACKBONE_FIELD
from orchestrator.planning.setting_layers import lookup
from orchestrator.planning.typed import CATEGORIES_FIELD
from orchestrator.report.summary import caption_of
from schemas.data_spec import SPECIES_OF
from schemas.results import JobMetrics


class FinishedJob(NamedTuple):
    """Spec fields and metrics of a finished job."""

    fields: dict[str, Any]
    metrics: JobMetrics


_WEIGHTS = {"random": "random weights", "file": "a weights file"}
_IMAGENET = ("torchvision", "imagenet", "ImageNet")
"""Prefixes of the names of weights that were trained on ImageNet."""


def caption(done: Sequence[FinishedJob]) -> str:
    """Describe what the values are of: images, split, weights, network sizes and part regions."""
    metrics = [job.metrics for job in done]
    if not metrics:
        return caption_of(metrics)
    sizes = dict.fromkeys(
        (lookup(job.fields, BACKBONE_FIELD), lookup(job.fields, "model.width"), lookup(job.fields, "model.input_size"))
        for job in done
    )
    networks = ", ".join(f"{backbone} at width {width:g} and {size} px" for backbone, width, size in sizes)
    regions = sorted({m.part_regions for m in metrics if m.part_interpretability is not None})
    parts = [caption_of(metrics), networks, *([f"{' and '.join(regions)} part regions"] if regions else [])]
    return "; ".join(parts)


def caveats(done: Sequence[FinishedJob], beside_published: Sequence[FinishedJob]) -> Iterator[str]:
    """Yield a sentence for each reason why the values are not comparable with the published ones, or not as they look.

    Args:
        done: all finished jobs.
        beside_published: those whose values stand beside published ones.
    """
    yield from _against_published(beside_published)
    if share_weights(done):
        yield (
            "Categories of one backbone start from the same pre-trained weights, so they are no independent samples: "
            "p-values and intervals over categories say nothing about another pre-training."
        )
    yield from _other_images(beside_published)
    metrics = [job.metrics for job in done]
    trained = [job.metrics for job in done if lookup(job.fields, "model.variant") == "interpretable"]
    empty = [name for m in trained for name, count in m.assigned_filters.items() if count == 0]
    if empty:
        yield (
            "Each filter of an interpretable network for several categories is assigned to the category that "
            "activates it most. Categories without a filter, with the number of networks: "
            f"{', '.join(f'{name} in {empty.count(name)}' for name in dict.fromkeys(empty))}."
        )
    units = [m.part_valid_units for m in metrics if m.part_interpretability is not None and m.part_valid_units]
    if units and min(units) < 1:
        yield (
            f"On these small maps a filter has as few as {min(units):.2f} valid units per image, which bounds its part "
            "interpretability: compare only networks whose maps have the same size."
        )


def _against_published(done: Sequence[FinishedJob]) -> Iterator[str]:
    """Yield how images, networks and starting weights differ from the paper's."""
    metrics = [job.metrics for job in done]
    if any(m.images == "generated" for m in metrics):
        yield (
            "The animals are generated, whereas the paper uses photographs: no value here is comparable with a "
            "published one. The published values are shown for orientation only."
        )
    widths = [float(lookup(job.fields, "model.width")) for job in done]
    sizes = [int(lookup(job.fields, "model.input_size")) for job in done]
    if any(width < 1 for width in widths) or any(size < 224 for size in sizes):
        yield (
            f"The networks are smaller than the paper's (width 1, 224 px): width from {min(widths):g}, "
            f"input from {min(sizes)} px. This alone shifts all values: compare ordinary with interpretable."
        )
    others = sorted({_WEIGHTS.get(m.weights, m.weights) for m in metrics if not m.weights.startswith(_IMAGENET)})
    if others:
        yield f"The paper starts from ImageNet weights; these networks start from {' and '.join(others)}."


def _other_images(done: Sequence[FinishedJob]) -> Iterator[str]:
    """Yield a sentence if filters are measured on other images than in the released code."""
    is_cub = [lookup(job.fields, CATEGORIES_FIELD) == [SPECIES_OF] for job in done]
    if any(job.metrics.measured_split == "test" for job, cub in zip(done, is_cub, strict=True) if not cub):
        yield (
            "Filters are measured on held-out images; the paper's released code measures them on all annotated ones "
            "(CUB-200-2011 excepted)."
        )
    cub_jobs = [job for job, cub in zip(done, is_cub, strict=True) if cub and job.metrics.images == "photographs"]
    if any((job.metrics.measured_split, lookup(job.fields, "data.split")) != ("test", "official") for job in cub_jobs):
        yield (
            "The filters of CUB-200-2011 are measured on other images than in the paper's released code, which takes "
            "the test images of the published split."
        )


def share_weights(done: Sequence[FinishedJob]) -> bool:
    """Whether networks of one backbone for different categories start from weights of the same job or file."""
    seen: dict[str, set[str]] = {}
    for job in done:
        if lookup(job.fields, "weights.source") != "random":
            start = str((lookup(job.fields, BACKBONE_FIELD), lookup(job.fields, "weights")))
            seen.setdefault(start, set()).add(str(lookup(job.fields, CATEGORIES_FIELD)))
    return any(len(categories) > 1 for categories in seen.values())
