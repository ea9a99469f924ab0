"""What held-out images say about the current network: its logits, and the information in its filters (Eqs. 1 and 5).

Shape legend: N images   M images for the information   B images of a batch   O outputs   F filters
H = W = n map side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp_model.loss.assignment import FilterCategories
from interp_model.loss.filter_loss import scale_by_peak
from interp_model.loss.mutual_information import Information, information
from interp_model.network import Network
from interp_model.templates import make_templates, template_prior
from workers.training.inputs import Inputs

INFORMATION_IMAGES = 256
"""Number of images, evenly spaced, on which the mutual information is estimated (footnote 2 allows a subset). The
logarithm of this number bounds the estimate, so compare values of different data sets with care."""

LOGIT_SCALE = 16.0
"""Fitness, in nats, of a single unit at a filter's mean peak, so that one sharp peak nearly determines its template.
It is the same for all networks, whatever their own filter loss, so that they can be compared. At the filter loss's own
1 nat even a clean filter leaves nine tenths of the entropy, and the curves are flat."""


class Assessment(NamedTuple):
    """Results of one pass over held-out images."""

    logits_NO: Tensor
    information: Information
    """Mutual information and entropies of every filter of the measured layer."""
    category_F: Tensor
    """Category that activates each filter most, as an index of an output."""


@torch.no_grad()
def assess(network: Network, inputs: Inputs) -> Assessment:
    """Run all images through the network once, without flips; leaves the network in evaluation mode."""
    network.eval()
    is_used_N = np.zeros(len(inputs), dtype=np.bool_)
    count = min(INFORMATION_IMAGES, len(inputs))
    is_used_N[np.linspace(0, len(inputs) - 1, count).round().astype(np.int64)] = True
    logits, maps = [], []
    for index_B in inputs.batches():
        output = network.forward_head(inputs.as_they_are(index_B))
        logits.append(output.logits)
        maps.append(output.maps[network.top_layer][torch.from_numpy(is_used_N[index_B])])
    logits_NO = torch.cat(logits)
    label_M = inputs.label_N[torch.from_numpy(is_used_N)]
    return Assessment(logits_NO, *_information(torch.cat(maps), label_M, categories=logits_NO.shape[1]))


def _information(x_MFHW: Tensor, label_M: Tensor, categories: int) -> tuple[Information, Tensor]:
    """Return the information in each filter, scaled by its mean peak on its own category, and that category."""
    filters, side = x_MFHW.shape[1:3]
    own = FilterCategories(categories, filters).to(x_MFHW.device)
    own.update(x_MFHW, label_M)
    scaled_MFHW = scale_by_peak(x_MFHW, own.is_target(label_M), LOGIT_SCALE)
    t_THW, prior_T = make_templates(side).to(x_MFHW), template_prior(side).to(x_MFHW)
    return information(scaled_MFHW, t_THW, prior_T), own.category_F()
