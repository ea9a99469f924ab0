"""A CUDA device computes what the CPU computes, and resumes to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from benchmarks.gpu_parts import SMALL, resume
from benchmarks.packs import largest_difference
from interp_model.loss.filter_loss import FilterLoss
from interp_model.network import build_network
from schemas.job import BackboneName, FilterLossSpec, ModelSpec
from tests.support.toy import SIDE, toy_data, toy_network, toy_spec, toy_split, with_parts
from workers.evaluation.evaluate import evaluate
from workers.training import inputs
from workers.training.determinism import make_deterministic
from workers.training.frozen_features import FeatureStore
from workers.training.inputs import Inputs
from workers.training.pack_probe import batches_of
from workers.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
FORMS = get_args(FilterLossSpec.model_fields["form"].annotation)


@pytest.fixture(autouse=True)
def _as_in_a_worker() -> None:
    """Switch TF32 off, and determinism on before cuBLAS starts."""
    make_deterministic(1)


@pytest.mark.parametrize("form", FORMS)
def test_filter_loss_and_its_gradient_agree_with_the_cpu_in_float64(form: str) -> None:
    spec = FilterLossSpec.model_validate({"form": form})
    torch.manual_seed(0)
    maps_NFHW, label_N = 50 * torch.rand(8, 5, 7, 7, dtype=torch.float64), torch.arange(8) % 2
    found = []
    for device in ("cpu", "cuda"):
        layer = FilterLoss(spec, 7, 5, 1).double().to(device)
        x_NFHW = maps_NFHW.to(device).requires_grad_()
        loss = layer(x_NFHW, label_N.to(device))
        (gradient,) = torch.autograd.grad(loss, x_NFHW)
        found.append((loss.cpu(), gradient.cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backbone", get_args(BackboneName))
def test_logits_and_maps_agree_with_the_cpu(backbone: BackboneName) -> None:
    model = ModelSpec(
        backbone=backbone, variant="interpretable", width=0.125, input_size=SMALL.side, fc_width=64, dropout=0
    )
    torch.manual_seed(0)
    network = build_network(model, 2, from_scratch=True).eval()
    images = torch.randn(4, 3, SMALL.side, SMALL.side)
    with torch.no_grad():
        expected = network(images)
        found = network.to("cuda")(images.to("cuda"))
    torch.testing.assert_close(found.logits.cpu(), expected.logits, rtol=1e-3, atol=1e-4)
    for name, maps in expected.maps.items():
        torch.testing.assert_close(found.maps[name].cpu(), maps, rtol=1e-3, atol=1e-4)


def test_pictures_without_room_on_the_device_arrive_unchanged_while_it_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "has_room", lambda device, size: False)
    split, flip_B = toy_split(64), np.arange(64) % 3 == 0
    mean_SS3 = np.full((SIDE, SIDE, 3), 90.0, dtype=np.float32)
    there, here = (
        Inputs(toy_network(toy_spec()).to(device), split, mean_SS3, torch.device(device)) for device in ("cuda", "cpu")
    )
    assert split.take(range(64)).nbytes > inputs.UNPINNED_BYTES
    busy = torch.rand(2048, 2048, device="cuda")
    found = []
    for shift in range(8):  # a batch of pinned memory must not be used again before it was copied
        busy = busy @ busy / 2048
        found.append(there.take((np.arange(64) + shift) % 64, flip_B))
    for shift, images_B3SS in enumerate(found):
        expected = here.take((np.arange(64) + shift) % 64, flip_B)
        torch.testing.assert_close(images_B3SS.cpu(), expected, rtol=1e-6, atol=1e-6)


def test_features_without_room_in_memory_arrive_unchanged_from_their_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = toy_network(toy_spec(train__freeze_below="conv4")).to("cuda")
    mean_SS3 = np.full((SIDE, SIDE, 3), 90.0, dtype=np.float32)
    index_B, flip_B, found = np.arange(64), np.arange(64) % 3 == 0, []
    for limit in (inputs.MEMORY_LIMIT, 0):
        monkeypatch.setattr(inputs, "MEMORY_LIMIT", limit)
        taken = Inputs(network, toy_split(64), mean_SS3, torch.device("cuda"), store=FeatureStore(tmp_path, 10**9))
        taken.keep_features(horizontal_flip=True, report=lambda _: None)
        assert taken._kept is not None
        assert taken._kept.is_cuda == (limit > 0)
        found.append(taken.take(index_B, flip_B))
    assert torch.equal(*found)


def test_a_job_trained_and_measured_on_the_gpu_is_near_the_cpus() -> None:
    spec = toy_spec(model__dropout=0.0)  # the devices draw different masks
    data, found = toy_data(spec), []
    for device in (torch.device("cpu"), torch.device("cuda")):
        network = toy_network(spec).to(device)
        train, test = (Inputs(network, split, data.mean_SS3, device) for split in (data.train, data.test))
        trainer = Trainer(spec, network, train, test)
        trainer.run_epoch(on_step=lambda: None)
        found.append((trainer.records[0], evaluate(trainer, data, train, test, test, lambda _: None).metrics))
    (cpu, cpu_metrics), (gpu, gpu_metrics) = found
    assert gpu.task_loss == pytest.approx(cpu.task_loss, rel=1e-3)
    assert gpu.filter_loss == pytest.approx(cpu.filter_loss, rel=1e-3)
    assert gpu_metrics.location_instability == pytest.approx(cpu_metrics.location_instability, abs=0.02)


def test_all_measures_of_a_network_are_near_those_on_the_cpu() -> None:
    spec = toy_spec(evaluation={"valid_share": 0.2})
    data, found = with_parts(toy_data(spec)), []
    for device in (torch.device("cpu"), torch.device("cuda")):
        network = toy_network(spec).to(device)
        train, test, measured = (
            Inputs(network, split, data.mean_SS3, device) for split in (data.train, data.test, data.measured)
        )
        found.append(evaluate(Trainer(spec, network, train, test), data, train, test, measured, lambda _: None))
    cpu, gpu = found
    assert gpu.peaks.score_NF.device == torch.device("cpu")
    torch.testing.assert_close(gpu.peaks.score_NF, cpu.peaks.score_NF, rtol=1e-3, atol=1e-4)
    for name in ("part_interpretability", "location_instability", "shuffled_instability", "stability"):
        assert getattr(gpu.metrics, name) == pytest.approx(getattr(cpu.metrics, name), abs=0.05)


def test_steps_with_the_fastest_kernels_are_near_deterministic_ones() -> None:
    losses = []
    for deterministic in (True, False):
        spec = toy_spec(train__deterministic=deterministic)
        network, data = toy_network(spec).to("cuda"), toy_data(spec)
        inputs = Inputs(network, data.train, data.mean_SS3, torch.device("cuda"))
        losses.append(Trainer(spec, network, inputs, inputs).run_epoch(on_step=lambda: None).task_loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_interrupted_training_resumes_to_the_same_bits() -> None:
    assert resume(torch.device("cuda"))["is_bit_identical"]


def test_networks_stacked_on_the_gpu_get_the_gradients_of_each_alone() -> None:
    batches = batches_of(toy_spec(train__freeze_below="top_conv"), 4, torch.device("cuda"))
    assert largest_difference(batches) < 1e-3
