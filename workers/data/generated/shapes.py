"""Defines the parts of drawn animals, their labels, and the polygons that bodies consist of."""

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
"""Parts in order of their labels; `forehead` lies in the head, `back` in the torso."""
LABEL = {name: label for label, name in enumerate(PARTS)}
"""Value of each part in a map of parts."""

_ANGLES = np.linspace(0, 2 * np.pi, 18, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_HALF_ANGLES = np.linspace(-np.pi / 2, np.pi / 2, 6)
_HALF = np.stack([np.cos(_HALF_ANGLES), np.sin(_HALF_ANGLES)], axis=1)


class Shape(NamedTuple):
    """One filled polygon in body coordinates: x points ahead, y down, and the torso is about 1 long."""

    points: Points
    part: str
    colour: Colour


@dataclass
class Drawing:
    """An animal in body coordinates; later shapes cover earlier ones."""

    shapes: list[Shape] = field(default_factory=list)
    details: list[Shape] = field(default_factory=list)
    """Eyes and noses, drawn after the coat's pattern so that it never covers them."""
    landmarks: dict[str, Points] = field(default_factory=dict)

    def add(self, part: str, colour: Colour, *polygons: Points) -> None:
        """Add polygons of one part."""
        self.shapes += [Shape(points, part, colour) for points in polygons]

    def add_detail(self, part: str, colour: Colour, *polygons: Points) -> None:
        """Add polygons that the coat's pattern does not cover."""
        self.details += [Shape(points, part, colour) for points in polygons]


def point(x: float, y: float) -> Points:
    """Return a point in body coordinates."""
    return np.array([x, y])


def heading(angle: float, length: float = 1.0) -> Points:
    """Return a vector `angle` radians above straight ahead."""
    return np.array([math.cos(angle) * length, -math.sin(angle) * length])


def turn(points: Points, angle: float) -> Points:
    """Rotate row vectors so that straight ahead becomes `heading(angle)`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(points @ np.array([[cos, -sin], [sin, cos]]))


def ellipse(centre: Points, radius_x: float, radius_y: float, angle: float = 0.0) -> Points:
    """Return the outline of an ellipse, rotated by `angle` radians."""
    return centre + turn(_CIRCLE * (radius_x, radius_y), angle)


def limb(start: Points, end: Points, start_radius: float, end_radius: float) -> Points:
    """Return the outline of a tapered capsule."""
    dx, dy = end - start
    rims = np.concatenate([_HALF * end_radius, _HALF * -start_radius])
    outline = turn(rims, float(np.arctan2(-dy, dx)))
    outline[: len(_HALF)] += end
    outline[len(_HALF) :] += start
    return outline


def ribbon(path: Points, radii: NDArray[np.float64]) -> Points:
    """Return the outline of a band with half-width `radii` along a path, such as a tail or a trunk."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-6
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * radii[:, None]
    return np.concatenate([path + across, (path - across)[::-1]])


def curve(start: Points, angle: float, bend: float, length: float, steps: int = 7) -> Points:
    """Return a path that starts in direction `angle` and turns by `bend` radians."""
    angles = angle + np.linspace(0, bend, steps - 1)
    moves = np.stack([np.cos(angles), -np.sin(angles)], axis=1) * (length / (steps - 1))
    return np.concatenate([start[None], start + np.cumsum(moves, axis=0)])


def shade(colour: Colour, factor: float) -> Colour:
    """Return a colour with its brightness scaled by `factor`."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)
