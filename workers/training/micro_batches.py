"""A batch that goes through the network in parts, one after the other, with the gradient of the whole batch.

Less memory for more time: every part is forwarded twice. The first time nothing is kept but logits and the maps that
filter losses look at; the losses and their gradients by the maps are then those of the whole batch. The second time
each part takes its share of them backwards. This is exact for every form of the filter loss, though all of them
normalise over the images of a batch (Eq. 2): up to rounding, no gradient depends on the number of parts.

Shape legend: B images of the whole batch   b images of a part   D units of a fully-connected layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from interp_model.network import Network, Output

Take = Callable[[slice], Tensor]
"""The input of `forward_head` for some images of the batch."""


def parts_of(images: int, count: int) -> list[slice]:
    """So many parts, or as many as there are images, of nearly equal size."""
    count = min(count, images)
    bounds = [images * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


class PartialBatch:
    """One batch of a network in training mode, cut into parts."""

    def __init__(self, network: Network, images: int, count: int, take: Take) -> None:
        self._network = network
        self._parts = parts_of(images, count)
        self._take = take
        self._masks = _dropout_masks(network, images)

    @torch.no_grad()
    def look(self) -> Output:
        """What the whole batch gives; the maps are leaves, so that losses can be differentiated by them."""
        outputs = [self._forward(part) for part in self._parts]
        maps = {name: torch.cat([output.maps[name] for output in outputs]).requires_grad_() for name in outputs[0].maps}
        return Output(torch.cat([output.logits for output in outputs]), maps)

    def backward(
        self, task_loss: Callable[[Tensor, slice], Tensor], pull_of: Mapping[str, Tensor], *, own_layer_only: bool
    ) -> None:
        """Add the gradient of the task loss, the mean over all images, and of what pulls at the maps.

        Args:
            task_loss: the mean over a part's images, of its logits.
            pull_of: by layer, the gradient of the weighted filter loss of the whole batch by that layer's maps.
            own_layer_only: stop the pull below the layer's own weights (`filter_loss.gradient_scope: layer`).
        """
        whole = self._parts[-1].stop
        for part in self._parts:
            output = self._forward(part)
            pulled = {name: (output.maps[name], pull[part]) for name, pull in pull_of.items()}
            if own_layer_only:
                for name, (map_bFHW, pull_bFHW) in pulled.items():
                    self._add_to_own(name, map_bFHW, pull_bFHW)
                pulled = {}
            task = task_loss(output.logits, part) * ((part.stop - part.start) / whole)
            roots = [task, *(map_bFHW for map_bFHW, _ in pulled.values())]
            torch.autograd.backward(roots, [None, *(pull_bFHW for _, pull_bFHW in pulled.values())])

    def _add_to_own(self, layer: str, map_bFHW: Tensor, pull_bFHW: Tensor) -> None:
        parameters = tuple(self._network.blocks[layer].parameters())
        gradients = torch.autograd.grad(map_bFHW, parameters, pull_bFHW, retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _forward(self, part: slice) -> Output:
        with _dropping(self._masks, part):
            return self._network.forward_head(self._take(part))


def _dropout_masks(network: Network, images: int) -> dict[nn.Dropout, Tensor]:
    """Drawn for the whole batch, in the order and the sizes in which the whole batch would have drawn them: (B, D)."""
    masks: dict[nn.Dropout, Tensor] = {}
    weight_DD: Tensor | None = None
    for module in network.modules():
        if isinstance(module, nn.Linear):
            weight_DD = module.weight
        if isinstance(module, nn.Dropout) and weight_DD is not None:
            masks[module] = functional.dropout(weight_DD.new_ones(images, len(weight_DD)), module.p)
    return masks


@contextmanager
def _dropping(masks: Mapping[nn.Dropout, Tensor], part: slice) -> Iterator[None]:
    """The network's dropout layers draw nothing themselves and multiply by what was drawn."""

    def drop(mask_bD: Tensor, module: nn.Module, arguments: Any, passed_bD: Tensor) -> Tensor:
        return passed_bD * mask_bD

    with ExitStack() as undo:
        for module, mask_BD in masks.items():
            module.eval()
            undo.callback(module.train)
            undo.callback(module.register_forward_hook(partial(drop, mask_BD[part])).remove)
        yield
