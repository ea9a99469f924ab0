"""Runs a batch through the network in parts, one after the other, and computes the gradient of the whole batch.

It takes less memory and more time: every part is forwarded twice. The first pass keeps only the logits and the maps
that filter losses need; the losses and their gradients with respect to the maps are then computed on the whole batch.
The second pass forwards each part again and backpropagates its share. All forms of the filter loss normalise over the
images of a batch (Eq. 2), so a sum of the parts' own losses would be another loss; this gradient is exact up to
rounding, whatever the number of parts.

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

Forward = Callable[[slice], Output]
"""Returns the network's output for some images of the batch."""


def parts_of(images: int, count: int) -> list[slice]:
    """Cut a batch into `count` parts of nearly equal size, or one per image if there are fewer images."""
    count = min(count, images)
    bounds = [images * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


class PartialBatch:
    """One batch of a network in training mode, cut into parts."""

    def __init__(self, network: Network, images: int, count: int, forward: Forward) -> None:
        """Cut the batch, and draw the dropout masks of the whole batch.

        Args:
            network: the network, in training mode.
            images: number of images in the batch.
            count: number of parts.
            forward: returns the network's output for one part.
        """
        self._network = network
        self._parts = parts_of(images, count)
        self._forward_part = forward
        self._masks = dropout_masks(network, images)

    @torch.no_grad()
    def forward(self) -> Output:
        """Return the output for the whole batch; its maps are leaves that losses can be differentiated by."""
        outputs = [self._forward(part) for part in self._parts]
        maps = {name: torch.cat([output.maps[name] for output in outputs]).requires_grad_() for name in outputs[0].maps}
        return Output(torch.cat([output.logits for output in outputs]), maps)

    def backward(
        self, task_loss: Callable[[Tensor, slice], Tensor], map_gradients: Mapping[str, Tensor], *, own_layer_only: bool
    ) -> None:
        """Add the gradient of the task loss, the mean over all images, and of the filter losses.

        Args:
            task_loss: computes a part's mean loss from its logits.
            map_gradients: by layer, the gradient of the whole batch's weighted filter loss with respect to the maps.
            own_layer_only: stop that gradient below the layer's own weights (`filter_loss.gradient_scope: layer`).
        """
        whole = self._parts[-1].stop
        for part in self._parts:
            output = self._forward(part)
            by_layer = {name: (output.maps[name], gradient[part]) for name, gradient in map_gradients.items()}
            if own_layer_only:
                for name, (map_bFHW, gradient_bFHW) in by_layer.items():
                    self._add_to_own(name, map_bFHW, gradient_bFHW)
                by_layer = {}
            task = task_loss(output.logits, part) * ((part.stop - part.start) / whole)
            roots = [task, *(map_bFHW for map_bFHW, _ in by_layer.values())]
            torch.autograd.backward(roots, [None, *(gradient_bFHW for _, gradient_bFHW in by_layer.values())])

    def _add_to_own(self, layer: str, map_bFHW: Tensor, gradient_bFHW: Tensor) -> None:
        parameters = tuple(self._network.blocks[layer].parameters())
        gradients = torch.autograd.grad(map_bFHW, parameters, gradient_bFHW, retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _forward(self, part: slice) -> Output:
        with fixed_dropout({module: mask_BD[part] for module, mask_BD in self._masks.items()}):
            return self._forward_part(part)


def dropout_masks(network: Network, images: int) -> dict[nn.Dropout, Tensor]:
    """Draw each dropout layer's mask in the order and size in which the whole batch would draw it: (B, D).

    Args:
        network: the network, in training mode.
        images: number of images in the batch.
    """
    masks: dict[nn.Dropout, Tensor] = {}
    weight_DD: Tensor | None = None
    for module in network.modules():
        if isinstance(module, nn.Linear):
            weight_DD = module.weight
        if isinstance(module, nn.Dropout) and weight_DD is not None:
            masks[module] = functional.dropout(weight_DD.new_ones(images, len(weight_DD)), module.p)
    return masks


@contextmanager
def fixed_dropout(masks: Mapping[nn.Dropout, Tensor]) -> Iterator[None]:
    """Make dropout layers multiply by masks of the batch that is computed instead of drawing their own."""

    def drop(mask_bD: Tensor, module: nn.Module, arguments: Any, passed_bD: Tensor) -> Tensor:
        return passed_bD * mask_bD

    with ExitStack() as undo:
        for module, mask_bD in masks.items():
            module.eval()
            undo.callback(module.train)
            undo.callback(module.register_forward_hook(partial(drop, mask_bD)).remove)
        yield
