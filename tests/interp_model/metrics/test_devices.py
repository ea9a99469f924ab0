"""Measures stay on the device of their inputs. Torch's fake CUDA tensors need no GPU, and refuse to meet the CPU's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from interp_model.mask import find_peak
from interp_model.metrics.baselines import baselines
from interp_model.metrics.bootstrap import percentiles, resampled, resamples
from interp_model.metrics.consistency import consistency, counted, near_landmarks, stability
from interp_model.metrics.location_instability import location_instability
from interp_model.metrics.scene import Scene, make_scene
from interp_model.metrics.tracking import real_variance, shuffled

IMAGES, FILTERS, LANDMARKS, SIDE = 20, 8, 3, 5
CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with FakeTensorMode():
        yield


def positions(*shape: int) -> Tensor:
    return torch.rand(*shape, 2, dtype=torch.float64, device=CUDA)


def scene() -> Scene:
    peak = find_peak(torch.rand(IMAGES, FILTERS, SIDE, SIDE, device=CUDA))
    counts_NF = peak.height_NF > 0
    return make_scene(
        peak.index_NF, peak.height_NF, counts_NF, positions(SIDE**2), positions(IMAGES, LANDMARKS), 64.0, 10, 2
    )


def test_fake_tensors_of_two_devices_do_not_mix() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.rand(2, device=CUDA) + torch.rand(2)


def test_location_instability_and_its_controls_stay_on_the_device() -> None:
    found = scene()
    score_NF = torch.rand(IMAGES, FILTERS, device=CUDA)
    diagonal_N = torch.full((IMAGES,), 90.0, device=CUDA)
    measured = location_instability(positions(IMAGES, FILTERS), score_NF, positions(IMAGES, LANDMARKS), diagonal_N)
    for value in (*measured, *shuffled(found), real_variance(found), *baselines(found)):
        assert value.device == CUDA


def test_consistency_stability_and_the_bootstrap_stay_on_the_device() -> None:
    found, landmark_NK2 = scene(), positions(IMAGES, LANDMARKS)
    fires_NF = torch.rand(IMAGES, FILTERS, device=CUDA) > 0
    near_KNF = near_landmarks(positions(IMAGES, FILTERS), landmark_NK2, 64.0)
    counted_KNF = counted(fires_NF, landmark_NK2)
    same = consistency(near_KNF, counted_KNF, positions(SIDE**2), landmark_NK2, 64.0, 2)
    value_3B = resampled(found, shuffled(found), near_KNF, counted_KNF, resamples(IMAGES).to(CUDA))
    for value in (*same, stability(near_KNF, near_KNF, counted_KNF, fires_NF), percentiles(value_3B)):
        assert value.device == CUDA
