"""Theoretical receptive fields: size, stride and centre of a layer's units, computed from the backbone table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from interp_model.backbones import Layer


class ReceptiveField(NamedTuple):
    """Receptive fields of the units of one layer, equal for rows and columns."""

    size: int
    """Side of a receptive field, image pixels."""
    stride: int
    """Distance between the centres of neighbouring units, image pixels."""
    first_centre: float
    """Image coordinate of the centre of unit 0, pixels. Pixel p spans [p, p + 1), so its own centre is p + 0.5."""

    def centre_of(self, unit: int) -> float:
        """Return the image coordinate of a unit's centre along one axis, pixels."""
        return self.first_centre + unit * self.stride


def receptive_field(layers: Iterable[Layer], upto: str) -> ReceptiveField:
    """Return the receptive field of the layer `upto`: p(mu), the centre of a unit's receptive field (Sec. 5.2.2).

    Padding shifts the centres. Those of the outer units of deep layers may lie outside the image.

    Args:
        layers: layers of the network, input to output.
        upto: name of the layer.

    Raises:
        KeyError: no layer has that name; the message lists the valid names.
    """
    size, stride, centre = 1, 1, 0.5
    seen: list[str] = []
    for layer in layers:
        size += (layer.kernel - 1) * stride
        centre += ((layer.kernel - 1) / 2 - layer.pads[0]) * stride
        stride *= layer.stride
        seen.append(layer.name)
        if layer.name == upto:
            return ReceptiveField(size, stride, centre)
    raise KeyError(f"no layer {upto!r}; this network has {', '.join(seen)}")
