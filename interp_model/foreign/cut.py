"""Cuts a module at a named layer into blocks that follow each other, dilated so that the map has enough units."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from interp_model.backbones import FC_LAYERS, NEW_LAYER
from interp_model.foreign.fields import Followed, Window, field_of, follow, owner_of, path_of, paths_of
from interp_model.foreign.pools import DENSE_POOLS, dense
from interp_model.receptive_field import ReceptiveField
from schemas.base import did_you_mean
from schemas.errors import SpecError

LEAST_SIDE = 10
"""Smallest number of units along a side of the map for which no stride is undone. Networks whose last map has a
thirty-second of the image's side then have 12 to 16 units from 192 to 256 px, as the paper's have 13 or 14."""

POOL_LAYER, HEAD_LAYER = "pool", "head"
"""Names of what follows on the interpretable layers: a new pooling, or the module's own layers."""

_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class Cut(NamedTuple):
    """A module up to a layer, as blocks, and what is known of the layer's map."""

    blocks: dict[str, fx.GraphModule]
    """Name -> block, input to output. The input of each is the output of the one before. Every block has weights."""
    head: fx.GraphModule | None
    """What follows on the layer; None if it needs more than the layer's map."""
    channels: int
    side: int
    field: ReceptiveField


def cut(module: nn.Module, layer: str, *, input_size: int, filters: float = 1.0, least_side: int = LEAST_SIDE) -> Cut:
    """Cut a copy of a module after a layer. The map is the layer's output after a ReLU, also where it had one before.

    Where the map has fewer than `least_side` units, strides are undone, last first: a convolution or pooling of stride
    2 gets stride 1, and later kernels are dilated by 2, so that they read what they were trained to read.

    Args:
        module: takes images (N, 3, S, S). Its dropout and stochastic depth are left out.
        layer: name of one of its modules, whose output is a map (N, F, n, n).
        input_size: S, pixels.
        filters: share of the layer's channels that are kept, the first ones.
        least_side: smallest n, units; 1 undoes no stride.

    Raises:
        SpecError: there is no such layer, its output is no map, or the module cannot be traced or followed.
    """
    module = _plain_copy(module)
    names = {name for name, _ in module.named_modules() if name}
    if layer not in names:
        raise SpecError(f"it has no layer {layer!r}. {did_you_mean(layer, sorted(names))}")
    undone: list[str] = []
    side = 0
    while True:
        graph = _trace(module, layer)
        last = _last_node(graph, layer)
        nodes = _ancestors(graph, last)
        try:
            followed = follow(_module_of(module, nodes, last), module, input_size)
        except SpecError as error:
            if not undone:
                raise
            raise SpecError(
                f"its map has {side} x {side} units on images of {input_size} px, and the strides of "
                f"{' and '.join(undone)} cannot be undone for the {least_side} x {least_side} that it needs: {error}. "
                "Cut at an earlier layer, or take larger images"
            ) from error
        at = next(node for node in followed.shapes if node.name == last.name)
        shape, look = followed.shapes[at], followed.looks.get(at)
        if look is None or len(shape) != 4 or shape[2] != shape[3]:
            raise SpecError(f"the output of {layer} is no square map (N, F, n, n), but {tuple(shape)}. Name another")
        side = shape[2]
        if side >= least_side or look[0].stride == 1:
            break
        now = _undo_stride(module, followed, look[0].stride)
        if not now:
            break
        undone += now
    if side < 2:
        raise SpecError(
            f"the output of {layer} has one unit on images of {input_size} px, and no places to tell apart. Take "
            "larger images, or name an earlier layer"
        )
    kept = max(1, round(shape[1] * filters))
    blocks = _blocks(module, nodes, last, kept, {node.name for node in followed.shapes})
    return Cut(blocks, _head(module, graph, last), kept, side, field_of(look))


def _plain_copy(module: nn.Module) -> nn.Module:
    """Copy a module without dropout and in-place operations, in evaluation mode."""
    copied = copy.deepcopy(module).eval()
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _DROPOUT):
                setattr(parent, name, nn.Identity())
            elif getattr(child, "inplace", False) is True:
                child.inplace = False  # type: ignore[assignment]
    return copied


class _Tracer(fx.Tracer):
    """Leaves batch normalisation of any library whole: traced, it would never learn statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.finished: list[str] = []
        """Names of the modules whose code has been traced to its end, in order."""

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        self.finished.append(self.path_of_module(m))
        return output

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (_BatchNorm, *DENSE_POOLS)) or super().is_leaf_module(m, module_qualified_name)


def _trace(module: nn.Module, layer: str) -> fx.Graph:
    """Return the graph of a module; where code after `layer` cannot be traced, the graph up to that."""
    tracer = _Tracer()
    try:
        return tracer.trace(module)
    except Exception as error:
        if layer in tracer.finished:
            return tracer.graph
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        earlier = f" such as {tracer.finished[-1]}" if tracer.finished else ""
        raise SpecError(
            f"its code up to that layer cannot be traced by torch.fx ({line}). Name an earlier layer{earlier}, or take "
            "another network"
        ) from error


def _last_node(graph: fx.Graph, layer: str) -> fx.Node:
    inside: list[fx.Node] = [node for node in graph.nodes if layer in paths_of(node)]
    if not inside:
        called = [path for node in graph.nodes for path in paths_of(node) if path.startswith(f"{layer}.")]
        depth = layer.count(".") + 2
        advice = f"Name the last one inside it: {'.'.join(called[-1].split('.')[:depth])}" if called else "Name another"
        raise SpecError(f"its code does not call its layer {layer}. {advice}")
    return inside[-1]


def _ancestors(graph: fx.Graph, last: fx.Node) -> list[fx.Node]:
    """Return the nodes that a node needs, in order, itself included."""
    needed, open_ = {last}, [last]
    while open_:
        for source in open_.pop().all_input_nodes:
            if source not in needed:
                needed.add(source)
                open_.append(source)
    return [node for node in graph.nodes if node in needed]


def _module_of(
    root: nn.Module, nodes: Sequence[fx.Node], last: fx.Node, first: fx.Node | None = None, keep: int | None = None
) -> fx.GraphModule:
    """Make a module of some nodes.

    Args:
        root: the whole module.
        nodes: the nodes, in order. Attributes of the module that they read may be missing.
        last: the output.
        first: node outside of `nodes` whose output is the input; None for the images.
        keep: number of channels to keep, after a ReLU; None changes nothing.
    """
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    if first is not None:
        known[first] = graph.placeholder("x")

    def of(node: fx.Node) -> fx.Node:
        if node not in known:  # an attribute that an earlier block reads too
            known[node] = graph.node_copy(node, of)
        return known[node]

    for node in nodes:
        if node.op != "output":
            known[node] = graph.node_copy(node, of)
    result = known[last]
    if keep is not None:
        result = graph.call_function(torch.relu, (result,))
        result = graph.call_function(_first_channels, (result, keep))
    graph.output(result)
    return fx.GraphModule(root, graph)


def _first_channels(x_NFHW: Tensor, count: int) -> Tensor:
    return x_NFHW if count == x_NFHW.shape[1] else x_NFHW[:, :count]


def _undo_stride(module: nn.Module, followed: Followed, stride: int) -> list[str]:
    """Undo the last strides of a module, changed in place, and dilate the kernels after them.

    Returns:
        Names of the modules whose stride was undone; empty if nothing could be.
    """
    last = [w for w in followed.windows if w.strided_from * w.stride[0] == stride and w.stride[0] > 1]
    # A functional pooling need not read an attribute `stride` of the module around it.
    changeable = [(w, owner) for w in last if isinstance(owner := owner_of(module, w.node), _STRIDED)]
    if not changeable or len(changeable) < len(last):
        return []
    factor = last[0].stride[0]
    for window, owner in changeable:
        if len(changeable) > 1 and (pool := dense(owner)) is not None:  # it must fit the convolution beside it
            module.set_submodule(path_of(window.node), pool)
            continue
        owner.stride = _like(owner.stride, 1)
        # TensorFlow's padding depends on the stride. The units stay where they were, with new ones before each.
        if isinstance(pad := getattr(owner, "static_padding", None), nn.ZeroPad2d):
            left, right, top, bottom = pad.padding
            pad.padding = (left + factor - 1, right, top + factor - 1, bottom)
    for window in followed.windows:
        if window.strided_from == stride:
            _dilate(owner_of(module, window.node), window, factor)
    return [path_of(window.node) for window, _ in changeable]


def _dilate(owner: nn.Module, window: Window, factor: int) -> None:
    """Dilate a kernel, with its padding. Average and padded poolings, which torch cannot dilate, stay as they are."""
    if isinstance(owner, nn.ZeroPad2d):
        left, right, top, bottom = owner.padding
        owner.padding = (left * factor, right * factor, top * factor, bottom * factor)
    elif isinstance(owner, DENSE_POOLS):
        owner.dilation = (owner.dilation[0] * factor, owner.dilation[1] * factor)
    elif isinstance(owner, nn.Conv2d) or (isinstance(owner, nn.MaxPool2d) and window.before == (0, 0)):
        owner.dilation = _like(owner.dilation, factor)
        if not isinstance(owner.padding, str):
            owner.padding = _like(owner.padding, factor)


def _like(value: Any, factor: int) -> Any:
    """Return a number, or both numbers of a pair, times a factor; with factor 1, all ones."""
    if isinstance(value, tuple | list):
        return tuple(number * factor if factor > 1 else 1 for number in value)
    return value * factor if factor > 1 else 1


def _blocks(
    root: nn.Module, nodes: Sequence[fx.Node], last: fx.Node, keep: int, tensors: Container[str]
) -> dict[str, fx.GraphModule]:
    """Cut wherever a single tensor passes on. Each block has a convolution; what has none belongs to the one before.

    Args:
        root: the whole module.
        nodes: the nodes, in order.
        last: the top map.
        keep: number of its channels to keep.
        tensors: names of the nodes whose value is a tensor; that of others, such as `chunk`, is a tuple.
    """
    groups = _groups([node for node in nodes if node.op not in ("placeholder", "get_attr")], tensors)
    merged: list[tuple[list[fx.Node], list[fx.Node]]] = []
    """Nodes of each block, and those of them that have its first convolution."""
    for group in groups:
        has_weights = any(_has_kernel(root, node) for node in group)
        if merged and not (has_weights and merged[-1][1]):
            block, core = merged[-1]
            merged[-1] = [*block, *group], core or (group if has_weights else [])
        else:
            merged.append((list(group), group if has_weights else []))
    source = next(node for node in nodes if node.op == "placeholder")
    blocks: dict[str, fx.GraphModule] = {}
    for block, core in merged:
        name = _name(core or block, {*blocks, NEW_LAYER, *FC_LAYERS, POOL_LAYER, HEAD_LAYER})
        blocks[name] = _module_of(root, block, block[-1], source, keep if block[-1] is last else None)
        source = block[-1]
    return blocks


def _groups(nodes: Sequence[fx.Node], tensors: Container[str]) -> list[list[fx.Node]]:
    """Split nodes after each tensor that alone is needed by those that follow."""
    position = {node: i for i, node in enumerate(nodes)}
    last_use = [max((position[user] for user in node.users if user in position), default=i)
                for i, node in enumerate(nodes)]  # fmt: skip
    groups: list[list[fx.Node]] = [[]]
    furthest = 0
    input_use = max((i for i, node in enumerate(nodes) if any(n.op == "placeholder" for n in node.all_input_nodes)),
                    default=0)  # fmt: skip
    for i, node in enumerate(nodes):
        groups[-1].append(node)
        if furthest <= i and input_use <= i and i + 1 < len(nodes) and node.name in tensors:
            groups.append([])
        furthest = max(furthest, last_use[i])
    return groups


def _has_kernel(root: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(parameter.ndim > 1 for parameter in root.get_submodule(str(node.target)).parameters())
    return any(source.op == "get_attr" and _attribute(root, str(source.target)).ndim > 1
               for source in node.all_input_nodes)  # fmt: skip


def _attribute(root: nn.Module, target: str) -> Tensor:
    value: Any = root
    for part in target.split("."):
        value = getattr(value, part)
    return value if isinstance(value, Tensor) else torch.zeros(())


def _name(nodes: Iterable[fx.Node], taken: set[str]) -> str:
    """Name a block after the innermost module that has all its nodes; a block's name has no dots."""
    levels = zip(*(path_of(node).split(".") for node in nodes), strict=False)
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, levels)]
    name = "_".join(shared) or "block"
    if name not in taken:
        return name
    return next(f"{name}_part{i}" for i in range(2, len(taken) + 3) if f"{name}_part{i}" not in taken)


def _head(root: nn.Module, graph: fx.Graph, last: fx.Node) -> fx.GraphModule | None:
    """Return what follows on the layer, if it needs nothing but the layer's map."""
    output = next((node for node in graph.nodes if node.op == "output"), None)
    if output is None:  # the code above could not be traced
        return None
    after: set[fx.Node] = set()
    for node in graph.nodes:
        if any(source is last or source in after for source in node.all_input_nodes):
            after.add(node)
    nodes = [node for node in graph.nodes if node in after]
    outside = {s for node in nodes for s in node.all_input_nodes if s not in after and s.op != "get_attr"}
    result = output.args[0]
    if outside != {last} or not isinstance(result, fx.Node) or result is last:
        return None
    return _module_of(root, nodes, result, last)
