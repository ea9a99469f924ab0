"""Loading pre-trained weights: which arrays of a state dict go into which convolution of the backbone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from interp_model.network import PIXEL_SCALE, Network
from interp_model.state_dicts import KINDS, Names, expected_shapes, find_convolutions, state_key
from schemas.errors import WeightsError
from schemas.weights import InputConvention

TORCHVISION_STD = (0.229, 0.224, 0.225)
"""Standard deviations (R, G, B) by which torchvision normalises pixels in 0..1."""

SMALLEST_KERNEL = 0.1
"""Kernel size (see `kernel_size`) below which a first kernel cannot be for pixels in 0..1.

torchvision's initialisation gives 0.31 (VGG-16) and 0.58 (AlexNet), training more (SqueezeNet: 1.4). The same networks
for pixels in 0..255 have 58 times less: 0.005 to 0.024. The opposite does not hold: a network that was trained on
0..255 may have a kernel of any size (HED's VGG-16: 0.95).
"""

ASSUMED = InputConvention(scale="1", order="rgb", known_by="assumed from torchvision's layer names")
"""Input of networks with torchvision's layer names, unless something says otherwise."""

_TOO_SMALL = (
    "is too small for torchvision's pixels of 0 to 1: its size is {size:.2g}, "
    f"expected at least {SMALLEST_KERNEL:g}. The network seems to take pixels of 0 to 255 minus a mean. Import the "
    "file with `orch weights import` and `--input-scale 255 --channel-order bgr` (Caffe) or `rgb`; if it does take 0 "
    "to 1, with `--input-scale 1`"
)

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class LayerFit(NamedTuple):
    """Comparison of one parameter or attribute of a layer with a weights file."""

    layer: str
    """Name of the layer."""
    kind: str
    """`weight` with shape (outputs, inputs, rows, columns), `bias`, or another attribute that a file has for its
    layers, such as `stride` or `pad`."""
    expected: tuple[float | str, ...]
    """Shape or value that the network needs."""
    found: tuple[float | str, ...] | None
    """Shape or value in the file; None if it is missing."""
    is_finite: bool = True
    """Whether all numbers are finite."""
    problem: str = ""
    """What is wrong with values of the expected shape, as the end of a sentence about them."""

    @property
    def fits(self) -> bool:
        """Whether the file has the expected, finite values."""
        return self.found is not None and _equal(self.expected, self.found) and self.is_finite and not self.problem


def _equal(expected: tuple[float | str, ...], found: tuple[float | str, ...]) -> bool:
    """Compare numbers up to single precision, in which some files store them."""
    return len(expected) == len(found) and all(
        math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float | int) and isinstance(b, float | int) else a == b
        for a, b in zip(expected, found, strict=True)
    )


def compare_layers(
    backbone: str, width: float, state: Mapping[str, Tensor], convention: InputConvention | None = None
) -> list[LayerFit]:
    """Compare every parameter of a backbone with a state dict under our names.

    Values are read only where the shape is the expected one, so a file cannot make this expensive.

    Args:
        backbone: name of the backbone.
        width: multiplier of every channel count.
        state: the state dict.
        convention: input of the foreign network; an assumed one is compared with the first kernel. None for ours.
    """
    fits = [
        _compare(layer, kind, shape, state.get(state_key(layer, kind)))
        for layer, kind, shape in expected_shapes(backbone, width)
    ]
    if convention == ASSUMED and fits[0].fits:
        size = kernel_size(state[state_key(fits[0].layer, "weight")])
        if 0 < size < SMALLEST_KERNEL:
            fits[0] = fits[0]._replace(problem=_TOO_SMALL.format(size=size))
    return fits


def _compare(layer: str, kind: str, expected: tuple[int, ...], found: Tensor | None) -> LayerFit:
    if found is None:
        return LayerFit(layer, kind, expected, None)
    fit = LayerFit(layer, kind, expected, tuple(found.shape))
    if fit.found != expected:
        return fit
    if problem := _kind_problem(found):
        return fit._replace(problem=problem)
    converted = found.detach().float() * PIXEL_SCALE  # the largest factor of a conversion, in the network's precision
    return fit._replace(is_finite=bool(converted.isfinite().all()))


def _kind_problem(value: Tensor) -> str:
    """Return what prevents a tensor's values from being used as they are."""
    if value.device.type == "meta":
        return "has a shape but no values (device meta)"
    if value.is_quantized or value.layout != torch.strided:
        return f"is a {'quantised' if value.is_quantized else 'sparse'} tensor, expected a dense one of floats"
    if value.dtype not in _FLOATS:
        return f"holds {str(value.dtype).removeprefix('torch.')}, expected floats of 16, 32 or 64 bits"
    return ""


def check_layers(backbone: str, fits: Iterable[LayerFit]) -> None:
    """Check that all layers fit.

    Raises:
        WeightsError: a layer does not fit; the message describes the first one.
    """
    for fit in fits:
        what = f"the {fit.kind} for {fit.layer} of {backbone}"
        if fit.found is None:
            raise WeightsError(
                f"the weights have no {fit.kind} for {fit.layer} of {backbone}. Use weights of a whole {backbone}."
            )
        if not fit.is_finite:
            raise WeightsError(f"{what} holds numbers that are not finite. The file is corrupt: use another copy.")
        if fit.problem:
            raise WeightsError(f"{what} {fit.problem}.")
        if not fit.fits and fit.kind in KINDS:
            raise WeightsError(
                f"the {fit.kind} of {fit.layer} has shape {fit.found}, expected {fit.expected} for {backbone}. "
                f"{_shape_advice(fit)}"
            )
        if not fit.fits:
            raise WeightsError(f"{what} should be {fit.expected} and is {fit.found}. Use weights of the same backbone.")


def _shape_advice(fit: LayerFit) -> str:
    if fit.found and fit.kind == "weight" and sorted(map(str, fit.found)) == sorted(map(str, fit.expected)):
        return "Its axes are in another order: orch and PyTorch have (outputs, inputs, rows, columns)."
    return "Use weights of the same backbone and the same `model.width` (published weights have width 1)."


def zero_layers(backbone: str, width: float, state: Mapping[str, Tensor]) -> list[str]:
    """Return the convolutions whose kernel is zero throughout, for weights that fit."""
    kernels = (layer for layer, kind, _ in expected_shapes(backbone, width) if kind == "weight")
    return [layer for layer in kernels if not state[state_key(layer, "weight")].any()]


def kernel_size(kernel_OIHW: Tensor) -> float:
    """Return the standard deviation of a convolution's output for white noise of unit variance."""
    return float(kernel_OIHW.float().square().sum((1, 2, 3)).mean().sqrt())


def load_state_into(network: Network, state: Mapping[str, Tensor]) -> None:
    """Copy the backbone's convolutions from a state dict into a network. New and fully connected layers stay unchanged.

    Args:
        network: changed in place.
        state: state dict under our names, or torchvision's with torchvision's input.

    Raises:
        WeightsError: a convolution is missing or has another shape; the network is then unchanged.
    """
    backbone, width = network.facts.backbone, network.facts.width
    target = network.state_dict()
    found = find_convolutions(state, backbone, width)
    convention = usual_input(found.names)
    check_layers(backbone, compare_layers(backbone, width, found.state, convention))
    source = converted(backbone, width, found.state, convention)
    with torch.no_grad():
        for key, value in source.items():
            target[key].copy_(value)


def usual_input(names: Names) -> InputConvention | None:
    """Return the input of networks with these layer names; None for ours."""
    return None if names == "orch" else ASSUMED


def converted(
    backbone: str, width: float, state: Mapping[str, Tensor], convention: InputConvention | None
) -> dict[str, Tensor]:
    """Return convolutions for our input, in float32.

    Args:
        backbone: name of the backbone.
        width: multiplier of every channel count.
        state: state dict under our names, whose layers fit.
        convention: input of the network that the state is of; None if it is ours.
    """
    keys = [state_key(layer, kind) for layer, kind, _ in expected_shapes(backbone, width)]
    ours = {key: state[key].detach().float().contiguous() for key in keys}
    if convention:
        ours[keys[0]] = kernel_for_our_input(ours[keys[0]], convention)
    return ours


def kernel_for_our_input(kernel_OIHW: Tensor, convention: InputConvention) -> Tensor:
    """Convert the first kernel of a foreign network to our input: RGB minus a mean, over `PIXEL_SCALE`.

    The bias stays the same. A different mean cannot be folded into it, because zero padding makes the difference of two
    means non-constant at the border.

    Args:
        kernel_OIHW: weights of the first convolution, (outputs, 3, rows, columns).
        convention: input of the foreign network.

    Returns:
        (outputs, 3, rows, columns).
    """
    rgb = kernel_OIHW.flip(1) if convention.order == "bgr" else kernel_OIHW
    if convention.scale == "255":
        return rgb * PIXEL_SCALE
    ratio_3 = PIXEL_SCALE / (255 * torch.tensor(TORCHVISION_STD))
    return rgb * ratio_3[:, None, None]
