"""The vocabulary of drawn animals: parts, their labels, and the polygons that body plans are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Colour = tuple[float, float, float]
"""RGB, 0-255."""

PARTS = ("background", "head", "forehead", "neck", "torso", "back", "wing", "frontal_legs", "legs", "tail")
"""A part's label in the map is its index here; `forehead` lies in the head, `back` in the torso."""
LABEL = {name: label for label, name in enumerate(PARTS)}

_ANGLES = np.linspace(0, 2 * np.pi, 18, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_HALF_ANGLES = np.linspace(-np.pi / 2, np.pi / 2, 6)
_HALF = np.stack([np.cos(_HALF_ANGLES), np.sin(_HALF_ANGLES)], axis=1)


class Shape(NamedTuple):
    """One filled polygon, in body coordinates: x to where the animal faces, y down, the torso about 1 long."""

    points: Points
    part: str
    colour: Colour


@dataclass
class Drawing:
    """An animal in body coordinates, back to front."""

    shapes: list[Shape] = field(default_factory=list)
    details: list[Shape] = field(default_factory=list)
    """Eyes and noses: drawn last, so that the coat's pattern never covers them."""
    landmarks: dict[str, Points] = field(default_factory=dict)

    def add(self, part: str, colour: Colour, *polygons: Points) -> None:
        self.shapes += [Shape(points, part, colour) for points in polygons]

    def add_detail(self, part: str, colour: Colour, *polygons: Points) -> None:
        self.details += [Shape(points, part, colour) for points in polygons]


def point(x: float, y: float) -> Points:
    return np.array([x, y])


def heading(angle: float, length: float = 1.0) -> Points:
    """A vector `angle` radians above straight ahead."""
    return np.array([math.cos(angle) * length, -math.sin(angle) * length])


def turn(points: Points, angle: float) -> Points:
    """Rotate row vectors so that straight ahead becomes `heading(angle)`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(points @ np.array([[cos, -sin], [sin, cos]]))


def ellipse(centre: Points, radius_x: float, radius_y: float, angle: float = 0.0) -> Points:
    return centre + turn(_CIRCLE * (radius_x, radius_y), angle)


def limb(start: Points, end: Points, start_radius: float, end_radius: float) -> Points:
    """A tapered capsule."""
    dx, dy = end - start
    rims = np.concatenate([_HALF * end_radius, _HALF * -start_radius])
    outline = turn(rims, float(np.arctan2(-dy, dx)))
    outline[: len(_HALF)] += end
    outline[len(_HALF) :] += start
    return outline


def ribbon(path: Points, radii: NDArray[np.float64]) -> Points:
    """A band of varying half-width along a path, such as a tail or a trunk."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-6
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * radii[:, None]
    return np.concatenate([path + across, (path - across)[::-1]])


def curve(start: Points, angle: float, bend: float, length: float, steps: int = 7) -> Points:
    """A path that sets off at `angle` and has turned by `bend` at its end."""
    angles = angle + np.linspace(0, bend, steps - 1)
    moves = np.stack([np.cos(angles), -np.sin(angles)], axis=1) * (length / (steps - 1))
    return np.concatenate([start[None], start + np.cumsum(moves, axis=0)])


def shade(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)
