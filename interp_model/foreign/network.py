"""Makes ordinary and interpretable networks of any module, cut at a named layer.

Shape legend: N images   S input side   F filters   n map side   D features.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from typing import Literal

import torch
from torch import nn

from interp_model.backbones import FC_LAYERS, NEW_LAYER, Pool, find_trained
from interp_model.blocks import fc_blocks, initialise, pool_block
from interp_model.foreign.cut import HEAD_LAYER, LEAST_SIDE, POOL_LAYER, Cut, cut
from interp_model.foreign.sources import build_module
from interp_model.loss.filter_loss import FilterLoss
from interp_model.network import Facts, Network
from interp_model.receptive_field import ReceptiveField
from schemas.errors import SpecError
from schemas.job import FilterLossSpec, ModelSpec, Variant
from schemas.model_spec import ForeignName, foreign_name

POOL = Pool(POOL_LAYER, 2, 2)
"""New pooling between the interpretable layers and fc6."""


def make_interpretable(
    module: nn.Module,
    layer: str,
    *,
    input_size: int,
    outputs: int | None = None,
    variant: Variant = "interpretable",
    filters: float = 1.0,
    mask: bool = True,
    new_layer_std: float | Literal["he"] | None = "he",
    fc_width: int = 256,
    dropout: float = 0.0,
    least_side: int = LEAST_SIDE,
    trains_statistics: bool = False,
) -> Network:
    """Make a network of the paper (Sec. 3 and 5) of a copy of any module: masks, a new convolution, and a head.

    `network(images)` returns logits and the maps of the interpretable layers. Weights of the module are kept.

    Args:
        module: takes images (N, 3, S, S); torch.fx must be able to trace it. It is not changed.
        layer: name of the module inside it whose output, (N, F, n, n), becomes the first interpretable layer.
        input_size: S, pixels.
        outputs: number of logits of a new head: pooling, fc6, fc7 and fc8. None keeps what the module has above
            `layer`.
        variant: `ordinary` adds neither masks nor a convolution.
        filters: share of the layer's channels that are kept, the first ones. Less than 1 needs `outputs`.
        mask: whether interpretable layers mask their maps.
        new_layer_std: standard deviation of the new convolution's weights; `he` is He's, None the paper's 0.01.
        fc_width: number of units of fc6 and fc7 of a new head.
        dropout: dropout probability after fc6 and fc7 of a new head.
        least_side: smallest n; strides are undone and later kernels dilated to reach it. 1 undoes none.
        trains_statistics: whether batch normalisation uses and learns the statistics of batches; right for a module
            with random weights.

    Raises:
        SpecError: there is no such layer, or the module cannot be cut there; the message says why.
    """
    try:
        found = cut(module, layer, input_size=input_size, filters=filters, least_side=least_side)
        if outputs is None and (found.head is None or filters < 1):
            why = "more than this map" if found.head is None else "all its channels"
            raise SpecError(f"what follows on {layer} needs {why}: give `outputs` for a new head")
    except SpecError as error:
        raise SpecError(f"{type(module).__name__} cannot be cut at {layer!r}: {error}.") from error
    model = ModelSpec.model_construct(  # without the limits of a sweep's images
        backbone="",
        variant=variant,
        width=filters,
        input_size=input_size,
        fc_width=fc_width,
        dropout=dropout,
        mask=mask or variant == "ordinary",
        new_layer_std=new_layer_std if variant == "interpretable" else None,
    )
    name = f"{type(module).__name__}@{layer}"
    network = _assemble(found, model, name, outputs, trains_statistics=trains_statistics)
    like = next(module.parameters(), torch.zeros(()))
    return network.to(like.device, like.dtype)


def filter_losses(network: Network, categories: int = 1, spec: FilterLossSpec | None = None) -> dict[str, FilterLoss]:
    """Return the filter loss of each interpretable layer of a network, by layer, on the network's device.

    Args:
        network: the network.
        categories: number of its categories; 1 means labels 1 (the category) and 0 (negative images).
        spec: form of the loss, and how filters are assigned to categories. None is the default.
    """
    spec = spec or FilterLossSpec()
    return {
        name: FilterLoss(spec, network.map_side(name), network.filters(name), categories).to(network.bank_PHW.device)
        for name in network.interpretable_layers
    }


def build_foreign(model: ModelSpec, name: ForeignName, n_outputs: int, *, from_scratch: bool) -> Network:
    """Build the network of a spec whose backbone is of another library; see `build_network`."""
    found = _cut_named(name, model.input_size, model.width)
    return _assemble(found, model, model.backbone, n_outputs, trains_statistics=from_scratch)


@cache
def check_foreign(backbone: str, input_size: int, freeze_below: str | None) -> None:
    """Check, without computing values where possible, that a backbone of another library can be built, cut and frozen.

    Raises:
        SpecError: it cannot.
    """
    name = foreign_name(backbone)
    assert name is not None
    try:
        with torch.device("meta"):
            found = _cut_named(name, input_size, 1.0)
    except RuntimeError:  # its constructor computes with values, such as RegNet's
        found = _cut_named(name, input_size, 1.0)
    if freeze_below is not None:
        find_trained(list(found.blocks), freeze_below, backbone)


def _cut_named(name: ForeignName, input_size: int, filters: float) -> Cut:
    module = build_module(name, input_size)
    try:
        return cut(module, name.layer, input_size=input_size, filters=filters)
    except SpecError as error:
        raise SpecError(f"`model.backbone` is {str(name)!r}, which cannot be cut there: {error}.") from error


def _assemble(found: Cut, model: ModelSpec, name: str, outputs: int | None, *, trains_statistics: bool) -> Network:
    """Put a new convolution and a head on a cut module."""
    blocks: OrderedDict[str, nn.Module] = OrderedDict(found.blocks)
    top = list(blocks)[-1]
    new: OrderedDict[str, nn.Module] = OrderedDict()
    measured = [top]
    if model.variant == "interpretable":
        conv = nn.Conv2d(found.channels, found.channels, 3, padding=1)
        new[NEW_LAYER] = nn.Sequential(OrderedDict[str, nn.Module](conv=conv, relu=nn.ReLU()))
        measured.append(NEW_LAYER)
    if outputs is None:
        assert found.head is not None
        initialise(new, model, from_scratch=False)
        new[HEAD_LAYER] = found.head
    else:
        new[POOL_LAYER] = pool_block(POOL)
        features = found.channels * (found.side // POOL.stride) ** 2
        new.update(zip(FC_LAYERS, fc_blocks(features, outputs, model), strict=True))
        initialise(new, model, from_scratch=trains_statistics)
    field = found.field
    fields = {top: field}
    if NEW_LAYER in measured:
        fields[NEW_LAYER] = ReceptiveField(field.size + 2 * field.stride, field.stride, field.first_centre)
    facts = Facts(
        backbone=name,
        input_size=model.input_size,
        blocks=tuple(found.blocks),
        sides=dict.fromkeys(measured, found.side),
        fields=fields,
        filters=dict.fromkeys(measured, found.channels),
        is_interpretable=model.variant == "interpretable",
        mask=model.mask,
        width=model.width,
        trains_statistics=trains_statistics,
    )
    return Network(facts, OrderedDict({**blocks, **new})).train()
