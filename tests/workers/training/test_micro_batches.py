"""Training on a batch in parts gives the same network as on the whole batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp_model.network import Network, Output
from schemas.job import JobSpec
from schemas.lifecycle import StopReason
from schemas.order import WorkOrder
from tests.support.lives import live
from tests.support.toy import CPU, run_epochs, toy_data, toy_network, toy_spec, toy_trainer, weights_of
from workers.training import inputs
from workers.training.inputs import Inputs
from workers.training.micro_batches import PartialBatch, parts_of
from workers.training.trainer import Trainer

if TYPE_CHECKING:
    from tests.conftest import Store

ONE_BATCH = {"train__batch_size": 24, "train__epochs": 1, "model__dropout": 0.5}
ROOM = 180
"""Megabytes that the process may add once it trains: less than a batch needs, more than a part needs."""
PARTS = 5
"""Parts of 24 images: four of five images and one of four."""


def exact_trainer(spec: JobSpec, micro_batches: int) -> Trainer:
    """Return a trainer in double precision, so that rounding does not hide a mistake."""
    data, network = toy_data(spec), toy_network(spec).double()
    train, test = (Inputs(network, split, data.mean_SS3.astype(np.float64), CPU) for split in (data.train, data.test))
    trainer = Trainer(spec, network, train, test, micro_batches=micro_batches)
    for layer in trainer.filter_losses.values():
        layer.double()
    return trainer


def gradients_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}


FORMS: list[dict[str, Any] | None] = [
    None,
    {"form": "labelled", "weight": 10.0},
    {"form": "exact", "weight": 10.0, "schedule": "constant"},
    {"form": "full", "weight": 10.0, "schedule": "activation"},
    {"form": "approximate", "weight": 10.0, "schedule": "activation"},
    {"form": "released", "weight": 1.0, "schedule": "constant", "peak": "centre_of_mass"},
    {"form": "labelled", "weight": 10.0, "gradient_scope": "layer"},
    {"form": "full", "weight": 10.0, "gradient_scope": "layer"},
]


@pytest.mark.parametrize("filter_loss", FORMS)
def test_the_gradient_of_the_parts_is_that_of_the_whole_batch(filter_loss: dict[str, Any] | None) -> None:
    """The second step is compared too: it depends on running statistics and the generators' states."""
    spec = toy_spec(**ONE_BATCH | {"train__epochs": 2}, filter_loss=filter_loss)
    whole, parts = exact_trainer(spec, 1), exact_trainer(spec, PARTS)
    for epoch in (1, 2):
        run_epochs(whole, 1)
        run_epochs(parts, 1)
        expected, found = gradients_of(whole), gradients_of(parts)
        assert expected.keys() == found.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-13, msg=f"{name}, epoch {epoch}")
        for field in vars(whole.records[-1]):
            if field != "seconds":
                expected_value, value = (getattr(t.records[-1], field) for t in (whole, parts))
                assert value == pytest.approx(expected_value, rel=1e-9), field
    for name, layer in whole.filter_losses.items():
        for buffer, value in layer.named_buffers():
            torch.testing.assert_close(
                dict(parts.filter_losses[name].named_buffers())[buffer], value, rtol=1e-9, atol=0
            )


def test_the_filter_loss_matters_in_that_comparison() -> None:
    """Otherwise the comparison would hold without the filter loss."""
    without, with_it = (
        gradients_of(run_epochs(exact_trainer(toy_spec(**ONE_BATCH, filter_loss=loss), PARTS), 1))
        for loss in (None, FORMS[1])
    )
    name = "blocks.conv6.conv.weight"
    assert (without[name] - with_it[name]).norm() > 0.1 * without[name].norm()


def test_a_filter_loss_of_each_part_alone_would_be_another_one() -> None:
    """Gradients cannot simply be accumulated: p(x|T) is normalised over the images of a batch (Eq. 2)."""
    spec = toy_spec(**ONE_BATCH, filter_loss={"form": "exact", "weight": 1.0})
    trainer = exact_trainer(spec, 1)
    layer = trainer.filter_losses["conv6"].eval()
    x_NFHW = torch.rand(24, len(layer.categories.activation_CF[0]), 3, 3, dtype=torch.float64)
    label_N = torch.arange(24) % 2
    apart = sum(layer(x_NFHW[part], label_N[part]) * (part.stop - part.start) / 24 for part in parts_of(24, PARTS))
    assert abs(apart - layer(x_NFHW, label_N)) > 0.01 * abs(apart)


@pytest.mark.parametrize("changes", [{}, {"train__freeze_below": "conv4"}, {"train__max_grad_norm": 0.1}])
def test_whole_trainings_agree(changes: dict[str, Any]) -> None:
    spec = toy_spec(train__epochs=3, model__dropout=0.5, **changes)
    whole, parts = (weights_of(run_epochs(exact_trainer(spec, count), 3)) for count in (1, 3))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-7, atol=1e-10)


def test_dropout_is_drawn_as_for_the_whole_batch_and_differs_between_images() -> None:
    trainer = toy_trainer(toy_spec("ordinary", **ONE_BATCH))
    network = trainer.network.train()
    block = network.blocks["fc6"]
    seen: list[Tensor] = []
    block.register_forward_hook(lambda module, arguments, output: seen.append(output.detach().clone()))
    images = trainer._train.as_they_are(np.arange(24))
    torch.manual_seed(3)
    network.forward_head(images)
    torch.manual_seed(3)
    PartialBatch(network, 24, PARTS, lambda part: network.forward_head(images[part])).forward()
    whole, parts = seen[0], torch.cat(seen[1:])
    torch.testing.assert_close(parts, whole)
    assert (whole == 0).any(dim=0).logical_and((whole != 0).any(dim=0)).any()
    assert network.blocks["fc6"].dropout.training  # type: ignore[union-attr]


def largest_training_batch(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    sizes = []

    def forward(network: Network, x: Tensor, real: Callable[..., Output] = Network.forward_head) -> Output:
        if network.training:
            sizes.append(len(x))
        return real(network, x)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "forward_head", forward)
        work()
    return max(sizes)


@pytest.mark.parametrize(("parts", "largest"), [(1, 24), (2, 12), (5, 5), (24, 1), (100, 1)])
def test_no_more_than_a_part_goes_through_the_network(
    monkeypatch: pytest.MonkeyPatch, parts: int, largest: int
) -> None:
    trainer = Trainer(*parts_for(toy_spec(**ONE_BATCH), memory_divisor=parts), micro_batches=parts)
    assert largest_training_batch(trainer, monkeypatch, lambda: run_epochs(trainer, 1)) == largest


def parts_for(spec: JobSpec, memory_divisor: int) -> tuple[JobSpec, Network, Inputs, Inputs]:
    data, network = toy_data(spec), toy_network(spec)
    train, test = (
        Inputs(network, split, data.mean_SS3, CPU, memory_divisor=memory_divisor) for split in (data.train, data.test)
    )
    return spec, network, train, test


def test_evaluation_and_kept_features_are_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "EVALUATION_BATCH", 8)
    _, _, train, _ = parts_for(toy_spec(train__freeze_below="top_conv"), memory_divisor=4)
    assert {len(index_B) for index_B in train.batches()} == {2}
    row = train.as_they_are(np.zeros(1, dtype=np.int64)).nbytes
    monkeypatch.setattr(inputs, "MEMORY_LIMIT", row * 48)  # enough for 24 images and their mirror images
    train.keep_features(horizontal_flip=True, report=lambda _: None)
    assert train._kept is None


def bytes_kept_for_backward(trainer: Trainer) -> int:
    """Return the peak number of bytes that autograd saves for the backward pass."""
    held, most = 0, 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal held, most
        size = tensor.nbytes
        held, most = held + size, max(most, held + size)
        kept = tensor.detach().clone()

        def let_go() -> None:
            nonlocal held
            held -= size

        weakref.finalize(kept, let_go)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run_epochs(trainer, 1)
    return most


def test_less_memory_is_held_for_the_backward_pass() -> None:
    """Weights are saved too, whatever the batch, so six parts need more than a sixth."""
    spec = toy_spec(**ONE_BATCH)
    whole, parts = (
        bytes_kept_for_backward(Trainer(*parts_for(spec, memory_divisor=count), micro_batches=count))
        for count in (1, 6)
    )
    assert parts < whole / 3


@pytest.mark.slow
def test_a_job_with_too_little_memory_for_its_batches_has_it_for_their_parts(
    store: Store, new_run: Callable[[], str], tmp_path: Path
) -> None:
    """A limit on the process's address space makes the allocation fail."""
    size = {"backbone": "vgg16", "width": 0.25, "input_size": 112}
    changes = {f"model__{name}": value for name, value in size.items()}
    spec = toy_spec(**changes, data__train_per_category=16, train__batch_size=32, train__epochs=1)
    folders = {name: str(tmp_path / name) for name in ("cache_dir", "checkpoint_dir", "log_dir")}
    ends = []
    for attempt, parts in ((1, 1), (2, 8)):
        order = WorkOrder(
            spec=spec, run_id=new_run(), attempt=attempt, tracking_uri=store.uri, micro_batches=parts, **folders
        )
        result = live(order, None, megabytes=ROOM)
        assert result is not None
        ends.append((result.stop_reason, result.micro_batches))
    assert ends == [(StopReason.OUT_OF_MEMORY, 1), (StopReason.FINISHED, 8)]
    log = (tmp_path / "log_dir" / spec.key / "attempt-2.log").read_text()
    assert "an earlier attempt ran out of memory: batches are cut into 8 parts" in log


@pytest.mark.parametrize(("images", "count"), [(24, 5), (24, 24), (3, 8), (2, 1), (33, 4)])
def test_parts_are_nearly_equal_and_leave_nothing_out(images: int, count: int) -> None:
    parts = parts_of(images, count)
    assert np.concatenate([np.arange(images)[part] for part in parts]).tolist() == list(range(images))
    sizes = [part.stop - part.start for part in parts]
    assert len(sizes) == min(count, images)
    assert max(sizes) - min(sizes) <= 1
