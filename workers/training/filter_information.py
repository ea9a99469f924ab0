"""What the held-out images say of a network as it stands: its answers, and what its filters tell (Eqs. 1 and 5).

Shape legend: N images   M watched ones   B images of a batch   O outputs   F filters   H = W = n map side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp_model.loss.assignment import FilterCategories
from interp_model.loss.filter_loss import in_units_of_peak
from interp_model.loss.mutual_information import Information, information
from interp_model.network import Network
from interp_model.templates import make_templates, template_prior
from workers.training.inputs import Inputs

WATCHED = 256
"""Images, evenly spaced, on which the mutual information is estimated: footnote 2 allows a subset. It is bounded by the
logarithm of their number, so numbers of different data should be compared with care."""

SHARPNESS = 16.0
"""Nats by which a lone unit at a filter's mean peak fits its template, so that one sharp peak all but names its place.
One yardstick for every network, whatever its own filter loss, so that ordinary and interpretable ones can be compared;
at the filter loss's 1 nat a clean filter leaves nine tenths of the entropy too, and the curves are flat."""


class Look(NamedTuple):
    logits_NO: Tensor
    told: Information
    """Of every filter of the measured layer."""
    category_F: Tensor
    """The category that activates it most; index of an output."""


@torch.no_grad()
def look(network: Network, inputs: Inputs) -> Look:
    """One pass over all images, none mirrored; it leaves the network in evaluation mode."""
    network.eval()
    watched_N = np.zeros(len(inputs), dtype=np.bool_)
    watched_N[np.linspace(0, len(inputs) - 1, min(WATCHED, len(inputs))).round().astype(np.int64)] = True
    logits, maps = [], []
    for index_B in inputs.batches():
        output = network.forward_head(inputs.as_they_are(index_B))
        logits.append(output.logits)
        maps.append(output.maps[network.top_layer][torch.from_numpy(watched_N[index_B])])
    logits_NO = torch.cat(logits)
    label_M = inputs.label_N[torch.from_numpy(watched_N)]
    return Look(logits_NO, *_told(torch.cat(maps), label_M, categories=logits_NO.shape[1]))


def _told(x_MFHW: Tensor, label_M: Tensor, categories: int) -> tuple[Information, Tensor]:
    """Each filter in units of its mean peak on the category that activates it most, and that category."""
    filters, side = x_MFHW.shape[1:3]
    own = FilterCategories(categories, filters).to(x_MFHW.device)
    own.update(x_MFHW, label_M)
    scaled_MFHW = in_units_of_peak(x_MFHW, own.is_target(label_M), SHARPNESS)
    t_THW, prior_T = make_templates(side).to(x_MFHW), template_prior(side).to(x_MFHW)
    return information(scaled_MFHW, t_THW, prior_T), own.category_F()
