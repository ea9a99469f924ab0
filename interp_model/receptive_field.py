"""Where on the image a unit looks: receptive-field size, stride and centre from the table's arithmetic alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from interp_model.backbones import Layer


class ReceptiveField(NamedTuple):
    """Of the units of one layer; rows and columns alike."""

    size: int
    """Side, in image pixels."""
    stride: int
    """Image pixels between the centres of neighbouring units."""
    first_centre: float
    """Image coordinate of unit 0's centre, in pixels; pixel p spans [p, p + 1), so its own centre is p + 0.5."""

    def centre_of(self, unit: int) -> float:
        """Image coordinate of the centre of a unit's receptive field along one axis."""
        return self.first_centre + unit * self.stride


def receptive_field(layers: Iterable[Layer], upto: str) -> ReceptiveField:
    """Receptive field of the layer called `upto`.

    Padding moves the centre; that it lies past the image's border for outer units of deep layers is as it should be.

    Raises:
        KeyError: no layer has that name; the message lists those that do.
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
