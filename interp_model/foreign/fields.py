"""Follows the receptive field through a traced module: kernel, stride, padding and dilation of each operation.

Rows and columns are followed apart, because a module may have kernels that are not square (1 x 7, then 7 x 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from interp_model.foreign.pools import DENSE_POOLS, Pair, pair
from interp_model.receptive_field import ReceptiveField
from schemas.errors import SpecError


class Axis(NamedTuple):
    """What unit 0 of a map sees along one axis: image pixels `low` to `high`. Unit i sees the same, `i * stride` on."""

    low: int
    high: int
    stride: int

    def through(self, kernel: int, stride: int, before: int, dilation: int) -> Axis:
        """Return what a unit sees after a kernel with padding `before` the first unit."""
        low = self.low - before * self.stride
        return Axis(low, self.high + (dilation * (kernel - 1) - before) * self.stride, self.stride * stride)


Look = tuple[Axis, Axis]
"""What unit (0, 0) of a map sees, along rows and columns."""


class Window(NamedTuple):
    """A convolution, a pooling or a padding in a traced module."""

    node: fx.Node
    kernel: Pair
    stride: Pair
    before: Pair
    """Padding before the first row and column."""
    dilation: Pair
    strided_from: int
    """Stride of its input's units, image pixels."""


class Followed(NamedTuple):
    """What is known of a traced module after a probe."""

    shapes: Mapping[fx.Node, tuple[int, ...]]
    """Shape of each tensor for one image."""
    looks: Mapping[fx.Node, Look | None]
    """What each map sees; None for what sees the whole image, such as the gate of a squeeze-and-excitation block."""
    windows: tuple[Window, ...]
    """All convolutions, poolings and paddings, in order."""


_POOLS = (functional.max_pool2d, functional.avg_pool2d, torch.max_pool2d)
_GLOBAL = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_GLOBAL_NAMES = ("adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax", "norm")
_REORDERS = ("permute", "transpose", "flatten", "view", "reshape", "contiguous")


class _Probe(fx.Interpreter):
    """Runs a module once and keeps the shape of every tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.has_tensors: set[fx.Node] = set()
        """Nodes whose value is a tensor or holds some, unlike a map's size."""

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.shapes[n] = tuple(found.shape)
        if isinstance(found, Tensor) or (isinstance(found, tuple | list) and any(isinstance(x, Tensor) for x in found)):
            self.has_tensors.add(n)
        return found


@torch.no_grad()
def follow(module: fx.GraphModule, root: nn.Module, input_size: int) -> Followed:
    """Run a module on one empty image, and follow what the units of its maps see.

    Args:
        module: a part of a traced module, in evaluation mode, whose input is (N, 3, S, S).
        root: the module that was traced.
        input_size: S, pixels.

    Raises:
        SpecError: the module cannot be run at this size, or changes the place of units in an unknown way.
    """
    like = next(module.parameters(), torch.zeros(()))
    probe = _Probe(module)
    try:
        probe.run(like.new_zeros(1, 3, input_size, input_size))
    except Exception as error:
        raise SpecError(
            f"it cannot be run on images of {input_size} px ({_first_line(error)}). Take the size that it is made for"
        ) from error
    looks: dict[fx.Node, Look | None] = {}
    windows: list[Window] = []
    for node in module.graph.nodes:
        if node.op == "placeholder":
            looks[node] = (Axis(0, 1, 1), Axis(0, 1, 1))
        elif node.op not in ("get_attr", "output") and node in probe.has_tensors:
            looks[node] = _look(root, node, looks, probe.shapes, windows)
    return Followed(probe.shapes, looks, tuple(windows))


def field_of(look: Look) -> ReceptiveField:
    """Return a receptive field that is equal for rows and columns.

    Raises:
        SpecError: rows and columns differ.
    """
    rows, columns = look
    if (rows.stride, rows.low + rows.high) != (columns.stride, columns.low + columns.high):
        raise SpecError("the receptive fields of its units are not square")
    size = max(rows.high - rows.low, columns.high - columns.low)
    return ReceptiveField(size, rows.stride, (rows.low + rows.high) / 2)


def _look(
    root: nn.Module,
    node: fx.Node,
    looks: Mapping[fx.Node, Look | None],
    shapes: Mapping[fx.Node, tuple[int, ...]],
    windows: list[Window],
) -> Look | None:
    seen = [look for source in node.all_input_nodes if (look := looks.get(source)) is not None]
    owner = root.get_submodule(str(node.target)) if node.op == "call_module" else None
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if not seen or isinstance(owner, _GLOBAL) or name in _GLOBAL_NAMES:
        return None
    if (window := _window(root, node, owner, seen[0])) is not None:
        windows.append(window)
        each = zip(seen[0], window.kernel, window.stride, window.before, window.dilation, strict=True)
        rows, columns = (axis.through(*numbers) for axis, *numbers in each)
        return rows, columns
    if name not in _REORDERS and _moves_units(node, looks, shapes):
        where = path_of(node)
        inside = f"{where} ({type(root.get_submodule(where)).__name__})" if where else "its own code"
        raise SpecError(
            f"its operation {node.name} in {inside} moves units to places that cannot be followed, as upsampling, "
            "blurring and attention do. Name a layer before it"
        )
    return _union(seen[0], seen[1:])


def _union(first: Look, others: Iterable[Look]) -> Look:
    """Return what a unit sees that combines units of several maps."""
    found = first
    for other in others:
        if any(a.stride != b.stride for a, b in zip(found, other, strict=True)):
            raise SpecError(
                "it combines maps whose units are at different distances, as networks of tokens do. Name a layer "
                "before that"
            )
        rows, columns = (
            Axis(min(a.low, b.low), max(a.high, b.high), a.stride) for a, b in zip(found, other, strict=True)
        )
        found = rows, columns
    return found


def _moves_units(
    node: fx.Node, looks: Mapping[fx.Node, Look | None], shapes: Mapping[fx.Node, tuple[int, ...]]
) -> bool:
    after = shapes.get(node, ())
    before = [shapes[n] for n in node.all_input_nodes if looks.get(n) is not None and n in shapes]
    # The units of a map are its last two axes, or the middle two where channels are last.
    return len(after) == 4 and any(
        len(shape) == 4 and shape[2:] != after[2:] and shape[1:3] != after[1:3] for shape in before
    )


def _window(root: nn.Module, node: fx.Node, owner: nn.Module | None, look: Look) -> Window | None:
    at = look[0].stride
    if isinstance(owner, nn.Conv2d):
        return _convolution(node, at, owner)
    if isinstance(owner, nn.MaxPool2d | nn.AvgPool2d):
        dilation = owner.dilation if isinstance(owner, nn.MaxPool2d) else 1
        return _made(node, at, owner.kernel_size, owner.stride, owner.padding, dilation)
    if isinstance(owner, DENSE_POOLS):
        return _made(node, at, owner.kernel_size, 1, 0, owner.dilation)
    if isinstance(owner, nn.ZeroPad2d | nn.ConstantPad2d | nn.ReflectionPad2d):
        left, _, top, _ = owner.padding
        return Window(node, (1, 1), (1, 1), (top, left), (1, 1), at)
    if node.op != "call_function":
        return None
    if node.target in (functional.conv2d, torch.conv2d):
        owner = owner_of(root, node)
        if isinstance(owner, nn.Conv2d):
            return _convolution(node, at, owner)
        raise SpecError(f"its operation {node.name} is a convolution without a module")
    if node.target in _POOLS:
        named = dict(zip(("input", "kernel_size", "stride", "padding"), node.args, strict=False)) | node.kwargs
        kernel = named["kernel_size"]
        return _made(node, at, kernel, named.get("stride") or kernel, named.get("padding", 0), named.get("dilation", 1))
    return None


def _convolution(node: fx.Node, at: int, conv: nn.Conv2d) -> Window:
    padding: Any = conv.padding
    if padding == "same":
        padding = [(k - 1) * d // 2 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    return _made(node, at, conv.kernel_size, conv.stride, 0 if padding == "valid" else padding, conv.dilation)


def _made(node: fx.Node, at: int, kernel: Any, stride: Any, before: Any, dilation: Any) -> Window:
    return Window(node, pair(kernel), pair(stride), pair(before), pair(dilation), at)


def owner_of(module: nn.Module, node: fx.Node) -> nn.Module:
    """Return the module that made a node: itself, or the innermost one whose code it is."""
    return module.get_submodule(path_of(node))


def path_of(node: fx.Node) -> str:
    """Return the name of the innermost module that made a node; empty for the whole module."""
    if node.op == "call_module":
        return str(node.target)
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def paths_of(node: fx.Node) -> Iterator[str]:
    """Yield the names of all modules that made a node, innermost last."""
    for path, _ in node.meta.get("nn_module_stack", {}).values():
        yield str(path)
    if node.op == "call_module":
        yield str(node.target)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
