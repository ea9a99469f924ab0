"""Measures what a location instability is worth: against shuffled peaks, fixed places, held-out images and noise.

Every filter is measured on the images of its own category, and for instability on its own top images.

Shape legend: N images   M images with noise   F filters   K landmarks   P places of the map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_model.metrics.baselines import Baselines, baselines
from interp_model.metrics.bootstrap import Intervals, intervals, resamples
from interp_model.metrics.consistency import Consistency, consistency, counted, near_landmarks, stability
from interp_model.metrics.scene import Scene, make_scene
from interp_model.metrics.tracking import real_variance, shuffled, tracking_share
from interp_model.network import Network
from schemas.job import JobSpec
from schemas.order import ReportPhase
from workers.data.dataset import JobData
from workers.evaluation.peaks import Peaks, evenly_spaced, find_noisy_peaks, places_of
from workers.training.inputs import Inputs


@dataclass(frozen=True)
class Controls:
    """Values per filter, NaN where undefined, and intervals of their means."""

    real_F: Tensor
    """Location instability on the filter's own images."""
    shuffled_F: Tensor
    held_out_F: Tensor
    """Location instability on the images that the job was not trained on."""
    held_out_shuffled_F: Tensor
    held_out_images: int
    baselines: Baselines
    consistency: Consistency
    stability_F: Tensor
    stability_images: int
    intervals: Intervals

    def per_filter(self) -> Mapping[str, Tensor]:
        """Return the columns of the table of filters by name."""
        return {
            "shuffled_instability": self.shuffled_F,
            "tracking_share": tracking_share(self.real_F, self.shuffled_F),
            "random_instability": self.baselines.random_F,
            "centre_instability": self.baselines.centre_F,
            "best_fixed_instability": self.baselines.best_fixed_F,
            "held_out_instability": self.held_out_F,
            "near_share": self.consistency.share_F,
            "stability": self.stability_F,
        }

    def summary(self) -> dict[str, Any]:
        """Return the fields of JobMetrics: means over filters, and their intervals. Undefined values are None."""
        of_layer: dict[str, Tensor | float] = {
            "shuffled_instability": self.shuffled_F.nanmean(),
            "tracking_share": tracking_share(self.real_F.nanmean(), self.shuffled_F.nanmean()),
            "random_instability": self.baselines.random_F.nanmean(),
            "centre_instability": self.baselines.centre_F.nanmean(),
            "best_fixed_instability": self.baselines.best_fixed_F.nanmean(),
            "held_out_instability": self.held_out_F.nanmean(),
            "held_out_tracking_share": tracking_share(self.held_out_F.nanmean(), self.held_out_shuffled_F.nanmean()),
            "consistency": self.consistency.score,
            "fixed_consistency": self.consistency.fixed_score,
            "near_share": self.consistency.share_F.nanmean(),
            "fixed_near_share": self.consistency.fixed_F.nanmean(),
            "stability": self.stability_F.nanmean(),
        }
        named = {
            "location_instability": self.intervals.instability,
            "tracking_share": self.intervals.tracking,
            "consistency": self.intervals.consistency,
        }
        finite = {name: found for name, found in named.items() if all(map(math.isfinite, found))}
        numbers = {name: float(value) for name, value in of_layer.items()}
        return {
            **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
            "held_out_images": self.held_out_images,
            "stability_images": self.stability_images,
            "intervals": finite,
        }


def measure_controls(
    spec: JobSpec,
    network: Network,
    data: JobData,
    measured: Inputs,
    peaks: Peaks,
    real_F: Tensor,
    category_F: Tensor,
    report: ReportPhase,
) -> Controls:
    """Measure the controls of every filter. Only stability needs forward passes.

    Args:
        spec: the job.
        network: the trained network.
        data: its images, with landmarks.
        measured: inputs of the measured images.
        peaks: peaks on these images.
        real_F: location instability of each filter on them.
        category_F: each filter's category, an index into `spec.data.categories`.
        report: called before each batch.
    """
    side, fewest, place_P2 = spec.model.input_size, spec.evaluation.fewest_images, places_of(network)
    device = peaks.unit_NF.device
    landmark_NK2 = torch.from_numpy(np.asarray(data.measured.landmarks_NK2)).to(device).double()
    category_N = torch.from_numpy(np.asarray(data.measured.categories_N)).to(device)
    counts_NF = (peaks.score_NF > 0) & (category_N[:, None] == category_F)

    def scene_of(counts_NF: Tensor) -> Scene:
        return make_scene(
            peaks.unit_NF, peaks.score_NF, counts_NF, place_P2, landmark_NK2, side, spec.evaluation.top_images, fewest
        )

    scene = scene_of(counts_NF)
    dealt = shuffled(scene)
    shuffled_F = scene.mean_deviation(dealt.variance_KF)
    held_out_F, held_out_shuffled_F, held_out_images = real_F, shuffled_F, len(data.measured)
    if data.held_out_N is not None:
        held_out_N = torch.from_numpy(data.held_out_N).to(device)
        held_out = scene_of(counts_NF & held_out_N[:, None])
        held_out_F = held_out.mean_deviation(real_variance(held_out))
        held_out_shuffled_F = held_out.mean_deviation(shuffled(held_out).variance_KF)
        held_out_images = int(held_out_N.sum())
    near_KNF = near_landmarks(peaks.pixel_NF2, landmark_NK2, side)
    counted_KNF = counted(counts_NF, landmark_NK2)
    stability_F, stability_images = torch.full_like(real_F, torch.nan), 0
    if spec.evaluation.stability_images:
        index_M = evenly_spaced(len(measured), spec.evaluation.stability_images)
        noisy, stability_images = find_noisy_peaks(network, measured, index_M, report), len(index_M)
        noisy_KMF = near_landmarks(noisy.pixel_NF2, landmark_NK2[index_M], side)
        stability_F = stability(near_KNF[:, index_M], noisy_KMF, counted_KNF[:, index_M], noisy.score_NF > 0)
    return Controls(
        real_F=real_F,
        shuffled_F=shuffled_F,
        held_out_F=held_out_F,
        held_out_shuffled_F=held_out_shuffled_F,
        held_out_images=held_out_images,
        baselines=baselines(scene),
        consistency=consistency(near_KNF, counted_KNF, place_P2, landmark_NK2, side, fewest),
        stability_F=stability_F,
        stability_images=stability_images,
        intervals=intervals(scene, dealt, near_KNF, counted_KNF, resamples(len(counts_NF)).to(device)),
    )
