"""Whether several small networks train faster as one: their trained layers stacked, one batched step for all.

Networks that share backbone, size and frozen layers differ in the weights of their trained layers and in their images.
`torch.func` stacks the weights and runs all networks with one call for each layer (`vmap`), so that a GPU starts fewer
kernels. Each network has its own images, labels and filter losses. Gradients are compared with those of the networks
one at a time; then both are timed in turn, in seconds (of CPU on a CPU).

    python -m benchmarks.packs [--backbone alexnet] [--networks 8] [--batch 32] [--repeats 6]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from benchmarks.metrics import seconds_of
from interp_model.loss.filter_loss import labelled_entropy, scale_by_peak
from interp_model.network import Network, Output, build_network
from interp_model.templates import make_templates, template_prior
from schemas.job import BackboneName, FilterLossSpec, ModelSpec
from workers.training.determinism import choose_device, seed_torch

TOLERANCE = 1e-3
"""Largest difference of a gradient, relative to its largest value; float32 sums are in another order."""
WEIGHT = 1e-2
"""Weight of the filter losses; it does not affect the cost of a step."""

State = Mapping[str, Tensor]


class Times(NamedTuple):
    """Median seconds of one step of all networks."""

    alone: float
    packed: float


class Head(nn.Module):
    """The trained layers of a network as a module of their own, for `functional_call`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Output:
        """Run the trained layers on features of the frozen ones."""
        return self.network.forward_head(x)


class Pack:
    """Networks with random weights whose layers below the top convolution are frozen, and features to train on."""

    def __init__(self, model: ModelSpec, networks: int, batch: int, device: torch.device) -> None:
        self.networks = [_network(model, seed, device) for seed in range(networks)]
        images_B3SS = torch.randn(batch, 3, model.input_size, model.input_size, device=device)
        with torch.no_grad():
            features = self.networks[0].forward_trunk(images_B3SS)
        self.features = torch.stack([torch.rand_like(features) for _ in range(networks)])
        self.labels = (torch.arange(batch, device=device) % 2).expand(networks, batch).contiguous()
        self._constants = {
            name: (make_templates(side).to(device), template_prior(side).to(device))
            for name in self.networks[0].interpretable_layers
            for side in [self.networks[0].map_side(name)]
        }
        parameters, self._buffers = stack_module_state(self.networks)
        trained = {name for name, value in self.networks[0].named_parameters() if value.requires_grad}
        self._trained = {name: value.detach() for name, value in parameters.items() if name in trained}
        self._frozen = {name: value.detach() for name, value in parameters.items() if name not in trained}
        self._head = Head(self.networks[0])
        self._gradients: Callable[..., dict[str, Tensor]] = vmap(grad(self._packed_loss))

    def alone(self) -> list[dict[str, Tensor]]:
        """Return the gradients of each network, computed one network after the other."""
        found = []
        for network, features, label_B in zip(self.networks, self.features, self.labels, strict=True):
            trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
            loss = self._loss(network.forward_head(features), label_B)
            found.append(dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True)))
        return found

    def packed(self) -> dict[str, Tensor]:
        """Return the same gradients of all networks at once: one more dimension in front, the network."""
        return self._gradients(self._trained, self._frozen, self._buffers, self.features, self.labels)

    def largest_difference(self) -> float:
        """Return the largest difference of the two, relative to the largest value of its gradient."""
        packed = self.packed()
        return max(
            ((packed[name][number] - value).abs().max() / value.abs().max().clamp_min(1e-12)).item()
            for number, gradients in enumerate(self.alone())
            for name, value in gradients.items()
        )

    def _packed_loss(self, trained: State, frozen: State, buffers: State, features: Tensor, label_B: Tensor) -> Tensor:
        state = {f"network.{name}": value for part in (trained, frozen, buffers) for name, value in part.items()}
        return self._loss(functional_call(self._head, state, (features,)), label_B)

    def _loss(self, output: Output, label_B: Tensor) -> Tensor:
        loss = functional.softplus((1 - 2 * label_B) * output.logits[:, 0]).mean()
        for name, (t_THW, prior_T) in self._constants.items():
            map_BFHW = output.maps[name]
            is_target_BF = (label_B == 1)[:, None].expand(map_BFHW.shape[:2])
            scaled_BFHW = scale_by_peak(map_BFHW, is_target_BF, FilterLossSpec().logit_scale)
            loss = loss + WEIGHT * labelled_entropy(scaled_BFHW, t_THW, prior_T, is_target_BF).sum()
        return loss


def measure(pack: Pack, repeats: int, device: torch.device) -> Times:
    """Time both ways in turn.

    Raises:
        SystemExit: their gradients differ.
    """
    if (difference := pack.largest_difference()) > TOLERANCE:
        raise SystemExit(f"the gradients differ by {difference:.1e} of their largest value")
    pairs = [(seconds_of(pack.alone, device), seconds_of(pack.packed, device)) for _ in range(repeats)]
    return Times(*(median(column) for column in zip(*pairs, strict=True)))


def _network(model: ModelSpec, seed: int, device: torch.device) -> Network:
    seed_torch(seed, 0, "weights")
    network = build_network(model, 1, from_scratch=True)
    network.freeze_below("top_conv")
    return network.to(device).train()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=get_args(BackboneName), default="alexnet")
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = choose_device()
    model = ModelSpec(
        backbone=options.backbone, variant="interpretable", width=options.width, input_size=options.side, fc_width=64,
        dropout=0.0,
    )  # fmt: skip
    times = measure(Pack(model, options.networks, options.batch, device), options.repeats, device)
    print(
        f"{options.networks} networks ({options.backbone}, batches of {options.batch}), on {device.type}, one step of "
        f"all: one by one {times.alone:.4f} s, packed {times.packed:.4f} s, ratio {times.packed / times.alone:.2f}"
    )


if __name__ == "__main__":
    main()
