"""Whether a worker runs a pack: as asked for, never by itself on a CPU, and on a GPU where it is faster and fits."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from benchmarks.packs import largest_difference
from interp_model.network import Network
from schemas.packs import Packing
from tests.support.toy import CPU, toy_spec
from workers.training import pack_probe
from workers.training.inputs import MEMORY_LIMIT
from workers.training.pack_probe import JOB_BYTES, Times, batches_of, jobs_at_once, measure, pays
from workers.training.stacked import can_stack

EXAMPLE = toy_spec(train__freeze_below="top_conv")
AUTO = Packing(setting="auto", example=EXAMPLE)
CUDA = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a pretended GPU has free, and whether its probe finds that packs pay."""
    found: dict[str, Any] = {"free": 100 * JOB_BYTES, "whole": 10**12, "pays": True}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (found["free"], found["whole"]))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(pack_probe, "pays", lambda example, jobs, device: found["pays"])
    return found


def test_a_number_is_taken_as_it_is() -> None:
    assert jobs_at_once(Packing(setting=3, example=EXAMPLE), device=CPU) == 3


def test_a_cpu_never_chooses_a_pack_by_itself() -> None:
    assert jobs_at_once(AUTO, device=CPU) == 1


def test_a_gpu_takes_as_many_jobs_as_its_memory_holds(gpu: dict[str, Any]) -> None:
    for free, jobs in ((100, 8), (8, 8), (3.5, 3), (1.9, 1), (0.5, 1)):
        gpu["free"] = int(free * JOB_BYTES) + MEMORY_LIMIT
        assert jobs_at_once(AUTO, device=CUDA) == jobs, free
    gpu["free"], gpu["pays"] = 100 * JOB_BYTES, False
    assert jobs_at_once(AUTO, device=CUDA) == 1


def test_a_worker_with_a_share_of_a_gpu_takes_jobs_for_that_share(gpu: dict[str, Any]) -> None:
    gpu["whole"] = 4 * (3 * JOB_BYTES + MEMORY_LIMIT)
    assert jobs_at_once(AUTO, 0.25, CUDA) == 3


@pytest.mark.parametrize(("packed", "expected"), [(0.5, True), (0.8, True), (0.81, False), (1.06, False)])
def test_a_pack_pays_if_it_is_clearly_faster(packed: float, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_probe, "measure", lambda batches, repeats, device: Times(1.0, packed))
    assert pays(EXAMPLE, 2, CPU) is expected


def test_the_probe_times_real_steps_of_networks_that_differ() -> None:
    batches = batches_of(EXAMPLE, 3, CPU)
    weights = [next(iter(batch.network.head().values())).get_parameter("conv.weight") for batch in batches]
    assert not torch.equal(weights[0], weights[1])
    assert min(measure(batches, 1, CPU)) > 0
    assert all(weight.grad is not None for weight in weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"train__batch_size": 4},
        {"model__backbone": "torchvision:squeezenet1_1@features.12"},
        {"model__backbone": "torchvision:resnet18@layer4", "weights": {"source": "torchvision"}},
    ],
)
def test_stacked_networks_get_the_gradients_of_each_alone(changes: dict[str, Any]) -> None:
    """Also other libraries' backbones, with batch normalisation that keeps its statistics."""
    spec = toy_spec(**{"train__freeze_below": "top_conv", "model__width": 1.0, **changes})
    batches = batches_of(spec, 2, CPU)
    assert can_stack(batches[0].network)
    assert largest_difference(batches) < 1e-3


def test_a_backbone_that_learns_statistics_of_batches_is_not_stacked() -> None:
    spec = toy_spec(train__freeze_below="top_conv", model__width=1.0, model__backbone="torchvision:resnet18@layer4")
    assert not can_stack(batches_of(spec, 1, CPU)[0].network)


def test_a_probe_that_fails_leaves_jobs_alone_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no batching rule")

    monkeypatch.setattr(pack_probe, "measure", fail)
    with caplog.at_level(logging.WARNING):
        assert not pays(EXAMPLE, 2, CPU)
    assert "no batching rule" in caplog.text


def test_networks_that_cannot_be_stacked_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(network: Network) -> bool:
        return False

    monkeypatch.setattr(pack_probe, "can_stack", refuse)
    monkeypatch.setattr(pack_probe, "measure", lambda *_: pytest.fail("it was timed"))
    assert not pays(EXAMPLE, 2, CPU)
