"""Explanation of one photograph: where the filters fire, and how much each contributes to the decision.

Shape legend: S input side   F filters   H = W map side   G occluder places along an axis   O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from interp_model.explain.attribution import Contributions, contributions
from interp_model.explain.occlusion import occluder_for, occlusion_drop, sensitivity_map
from interp_model.mask import peak_index
from interp_model.network import Network, output_probabilities, to_input
from schemas.errors import DataError, SpecError
from schemas.job import JobSpec
from schemas.order import ReportPhase
from workers.data.readers.records import Box
from workers.figures.canvas import Floats
from workers.figures.photograph import cut
from workers.training.determinism import without_tf32

STRIDE = 16 / 224
"""Stride of the occluder as a fraction of the image's side: about 200 positions."""
SHOWN = 6
"""Number of filters whose region is computed and drawn: those with the largest absolute contribution."""


@dataclass(frozen=True)
class FilterSays:
    """Response of one filter to the photograph."""

    filter: int
    """Number of the filter."""
    place: str
    """Where on the animal it usually peaks, from the job's table; empty if unknown."""
    contribution: float
    """Contribution to the logit; the contributions sum to the logit minus its base."""
    alone: float
    """Drop of the logit when only this filter is set to 0."""
    activation: float
    """Peak activation; 0 if the filter does not fire."""
    peak: tuple[float, float] | None
    """(x, y) of the peak in pixels of the upright photograph; None if the filter does not fire."""
    field_SS: Floats | None = None
    """Occlusion sensitivity, scaled to a maximum of 1; None for filters beyond the first `SHOWN`."""


@dataclass(frozen=True)
class Explanation:
    """A decision and the contributions that it consists of."""

    spec: JobSpec
    """The job."""
    layer: str
    """Name of the measured layer."""
    decision: str
    """The decision as text."""
    label: str
    """Label of the explained output."""
    probabilities: Mapping[str, float]
    """Label -> probability, in the order of the outputs."""
    logit: float
    """Logit of the explained output."""
    base: float
    """Logit with all filters set to 0."""
    residual: float
    """Discretisation error of the contributions."""
    filters: Sequence[FilterSays]
    """All filters, largest absolute contribution first."""
    box: Box
    """Box of the photograph that was classified, pixels."""


@without_tf32()
def explain(
    spec: JobSpec,
    network: Network,
    mean_SS3: Tensor,
    picture: Image.Image,
    box: Box,
    *,
    places: Mapping[int, str],
    category: str | None,
    report: ReportPhase,
) -> Explanation:
    """Classify the box of a photograph and attribute the decision to the filters of the measured layer.

    Args:
        spec: the job.
        network: the trained network.
        mean_SS3: mean image of its training set.
        picture: upright RGB photograph.
        box: box to classify.
        places: filter number -> where on the animal it usually peaks.
        category: id of the category to explain; None explains the most likely one.
        report: receives the progress.

    Raises:
        SpecError: the network has no output for the category.
        DataError: the network's output is infinite or NaN.
    """
    side = spec.model.input_size
    pixels_1SS3 = torch.from_numpy(cut(picture, box, side, side).copy())[None].to(mean_SS3.device)
    image_13SS = to_input(pixels_1SS3, mean_SS3)
    report("classifying the photograph")
    with torch.no_grad():
        output = network(image_13SS)
        masked_FHW = network.forward_measured(network.forward_trunk(image_13SS))[0]
    if not bool(output.logits.isfinite().all()):
        raise DataError(f"{spec.title} answers with numbers that are not finite. Look at its curves in `orch ui`.")
    probability_O = output_probabilities(output.logits[0], spec.loss)
    chosen = _chosen(spec, category, probability_O)
    report("computing the contributions of the filters")
    found = contributions(network.forward_classifier, masked_FHW, chosen)
    order = found.per_filter_F.abs().argsort(descending=True, stable=True).tolist()
    report("computing the regions of the filters")
    fields = _fields(network, image_13SS[0], order[:SHOWN])
    maps_FHW = output.maps[network.top_layer][0]
    filters = [_says(network, f, found, maps_FHW, box, places.get(f, ""), fields.get(f)) for f in order]
    labels = spec.output_labels
    probabilities = dict(zip(labels, probability_O.tolist(), strict=True))
    return Explanation(
        spec=spec,
        layer=network.top_layer,
        decision=_decision(spec, probabilities),
        label=labels[chosen],
        probabilities=probabilities,
        logit=found.logit,
        base=found.base,
        residual=found.residual,
        filters=filters,
        box=box,
    )


def _chosen(spec: JobSpec, category: str | None, probability_O: Tensor) -> int:
    if category is None:
        return int(probability_O.argmax())
    known = spec.data.categories if spec.data.labels == "categories" else spec.output_labels
    if category not in known:
        raise SpecError(
            f"{spec.title} has no output for {category}. It tells apart: {', '.join(known)}. Name one of them."
        )
    return known.index(category)


def _decision(spec: JobSpec, probabilities: Mapping[str, float]) -> str:
    best = max(probabilities, key=probabilities.__getitem__)
    value = probabilities[best]
    if spec.is_single:
        return f"{best}, p = {value:.3f}" if value >= 0.5 else f"not {best}, p = {value:.3f}"
    return f"{best}, p = {value:.3f}, of {len(probabilities)} categories"


def _fields(network: Network, image_3SS: Tensor, filters: list[int]) -> dict[int, Floats]:
    side = network.input_size
    occluder = occluder_for(side, stride_share=STRIDE)

    def maps(images_B3SS: Tensor) -> Tensor:
        return network.forward_measured(network.forward_trunk(images_B3SS))[:, filters]

    drop_FGG = occlusion_drop(maps, image_3SS, occluder).cpu()
    return {f: sensitivity_map(drop_GG, occluder, side).numpy() for f, drop_GG in zip(filters, drop_FGG, strict=True)}


def _says(
    network: Network, f: int, found: Contributions, maps_FHW: Tensor, box: Box, place: str, field_SS: Floats | None
) -> FilterSays:
    activation = float(maps_FHW[f].max())
    return FilterSays(
        filter=f,
        place=place,
        contribution=float(found.per_filter_F[f]),
        alone=float(found.alone_F[f]),
        activation=activation,
        peak=_peak(network, maps_FHW[f], box) if activation > 0 else None,
        field_SS=field_SS,
    )


def _peak(network: Network, map_HW: Tensor, box: Box) -> tuple[float, float]:
    """Return the receptive-field centre of the peak unit, (x, y) in pixels of the photograph, clipped to the box."""
    unit, n = int(peak_index(map_HW[None, None])), len(map_HW)
    field, side = network.receptive_field(network.top_layer), network.input_size
    row, column = (min(max(field.centre_of(at), 0.5), side - 0.5) / side for at in divmod(unit, n))
    return box.left + column * box.width, box.top + row * box.height
