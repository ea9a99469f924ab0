"""Draws animals with true parts and landmarks; equal arguments give equal pictures.

Legend: S side of the picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray

from workers.data.generated.animals import GENERATOR_VERSION, Pattern, individual
from workers.data.generated.bodies import draw_body
from workers.data.generated.shapes import LABEL, PARTS, Colour, Drawing, Points, Shape

Image = NDArray[np.uint8]
_Field = NDArray[np.float32]

_SUBPIXEL_BITS = 4
_OCCLUDER = 255
_TILE = 256
_MIN_VISIBLE = 6e-4
"""Fraction of the picture that a part must cover for its landmark to count as visible."""


class Generated(NamedTuple):
    """A drawn animal."""

    image_SS3: Image
    landmarks: dict[str, tuple[float, float]]
    """(row, column) in pixel indices, NaN where hidden or outside; at least every landmark of the category."""
    parts_SS: NDArray[np.uint8]
    """Index into `PARTS` of the visible part at each pixel."""


def generate(category_id: str, index: int, size: int, *, seed: int = 0, split: str = "train") -> Generated:
    """Draw one animal of a category, cropped to its jittered box.

    Args:
        index: number of the animal in its split.
        size: side of the picture, in pixels.
        seed: of the whole set of animals.
        split: animals of different splits differ.
    """
    rng = _random(category_id, index, seed, split)
    animal = individual(category_id, rng)
    drawing, _ = draw_body(animal, rng)
    to_pixels = _place(drawing, size, rng)
    canvas, parts = _background(size, rng), np.zeros((size, size), np.uint8)
    _fill(canvas, parts, drawing.shapes, to_pixels)
    canvas = _paint_coat(canvas, parts, animal.pattern, animal.marking, to_pixels, rng)
    _fill(canvas, parts, drawing.details, to_pixels)
    _occlude(canvas, parts, rng)
    areas = np.bincount(parts.ravel(), minlength=256)
    landmarks = {name: _locate(at, areas[list(part_labels(name))].sum(), parts, to_pixels)
                 for name, at in drawing.landmarks.items()}  # fmt: skip
    parts[parts == _OCCLUDER] = 0
    return Generated(_photograph(canvas, rng), landmarks, parts)


def _random(category_id: str, index: int, seed: int, split: str) -> Generator:
    name = f"{GENERATOR_VERSION}/{seed}/{category_id}/{split}/{index}"
    return Generator(PCG64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "big")))


def _place(drawing: Drawing, size: int, rng: Generator) -> NDArray[np.float64]:
    """Return the affine map (2, 3) from body coordinates to pixels: facing, view, rotation, then the box crop."""
    facing = -1.0 if rng.random() < 0.5 else 1.0
    foreshortening, tilt = rng.uniform(0.6, 1.0), rng.normal(0, 0.16)
    cos, sin = np.cos(tilt), np.sin(tilt)
    pose = np.array([[cos, -sin], [sin, cos]]) @ np.diag([facing * foreshortening, 1.0])
    points = np.concatenate([shape.points for shape in drawing.shapes]) @ pose.T
    low, high = points.min(axis=0), points.max(axis=0)
    margins = rng.uniform(-0.08, 0.18, size=(2, 2)) * (high - low)
    if rng.random() < 0.15:  # the picture shows only a part of the animal
        side, axis = rng.integers(2), rng.integers(2)
        margins[side, axis] = -rng.uniform(0.15, 0.45) * (high - low)[axis]
    corner, extent = low - margins[0], (high + margins[1]) - (low - margins[0])
    scale = np.diag((size - 1) / extent)
    return np.column_stack([scale @ pose, -scale @ corner])


def _transform(points: Points, to_pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ to_pixels[:, :2].T + to_pixels[:, 2]


def _fill(canvas: Image, parts: NDArray[np.uint8], shapes: list[Shape], to_pixels: NDArray[np.float64]) -> None:
    points = _transform(np.concatenate([shape.points for shape in shapes]), to_pixels)
    fixed = np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    start = 0
    for shape in shapes:
        polygon = [fixed[start : start + len(shape.points)]]
        start += len(shape.points)
        cv2.fillPoly(canvas, polygon, shape.colour, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.fillPoly(parts, polygon, (float(LABEL[shape.part]),), cv2.LINE_8, _SUBPIXEL_BITS)


def _to_bytes(canvas: _Field) -> Image:
    """Round and clip to 0-255; several times faster than clip and cast."""
    return np.asarray(cv2.convertScaleAbs(np.maximum(canvas, 0)), dtype=np.uint8)


@cache
def _noise_tile(octave: int) -> _Field:
    """Return periodic smooth noise in 0-1 with features of `_TILE / 2**octave` pixels."""
    cells = 2**octave
    coarse = Generator(PCG64(octave)).random((cells, cells)).astype(np.float32)
    wrapped = np.pad(coarse, 2, mode="wrap")
    side = _TILE * (cells + 4) // cells
    smooth = cv2.resize(wrapped, (side, side), interpolation=cv2.INTER_CUBIC)
    edge = 2 * _TILE // cells
    tile = np.tile(smooth[edge : edge + _TILE, edge : edge + _TILE], (2, 2))
    return np.ascontiguousarray(np.clip(tile, 0, 1))


def _noise(octave: int, size: int, rng: Generator) -> _Field:
    """Return a random window of the noise tile, scaled so that patterns do not depend on the picture's size."""
    row, column = rng.integers(_TILE, size=2)
    window = _noise_tile(octave)[row : row + _TILE, column : column + _TILE]
    if size == _TILE:
        return window
    how = cv2.INTER_NEAREST if size < _TILE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(window, (size, size), interpolation=how), dtype=np.float32)


def _clutter_colour(rng: Generator) -> Colour:
    """Return a natural colour, or a random one with probability 0.2."""
    is_gaudy = rng.random() < 0.2
    red, green, blue = rng.uniform(40, 215, size=3) if is_gaudy else _natural_colour(rng) * rng.uniform(0.5, 1)
    return float(red), float(green), float(blue)


def _natural_colour(rng: Generator) -> NDArray[np.float64]:
    """Return a variation of the colour of grass, earth, sky, snow, stone or a room."""
    base = np.array([(96, 124, 66), (138, 112, 78), (150, 176, 204), (208, 208, 212), (116, 114, 110), (170, 132, 100)])
    return np.asarray(np.clip(base[rng.integers(len(base))] + rng.normal(0, 16, size=3), 10, 245))


def _background(size: int, rng: Generator) -> Image:
    """Draw two textured surfaces with a horizon, and clutter behind the animal."""
    ground, sky = _natural_colour(rng).astype(np.float32), _natural_colour(rng).astype(np.float32)
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    slope = rng.normal(0, 0.15) * np.linspace(-1, 1, size, dtype=np.float32)
    rough = _noise(3, size, rng)
    above = np.clip((rng.uniform(0.1, 0.9) - rows + slope + 0.2 * (rough - 0.5)) * 12 + 0.5, 0, 1)
    texture = 0.75 + 0.3 * rough + rng.uniform(0.05, 0.35) * (_noise(int(rng.integers(5, 8)), size, rng) - 0.25)
    blend = ground + above.astype(np.float32)[..., None] * (sky - ground)
    canvas = _to_bytes(blend * texture[..., None])
    for _ in range(int(rng.integers(1, 4))):
        _clutter(canvas, None, rng, reach=0.5)
    return canvas


def _clutter(canvas: Image, parts: NDArray[np.uint8] | None, rng: Generator, reach: float) -> None:
    """Draw a stone, a leaf or a stick; with `parts` it hides the parts behind it."""
    size = canvas.shape[0]
    centre = rng.uniform(-0.05, 1.05, size=2)
    if rng.random() < 0.4:
        angle, length, width = rng.uniform(0, np.pi), rng.uniform(0.3, 1.2), rng.uniform(0.01, 0.035)
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]]) * width
        outline = np.stack([centre - along * length / 2 - across, centre + along * length / 2 - across,
                            centre + along * length / 2 + across, centre - along * length / 2 + across])  # fmt: skip
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, size=9))
        radii = rng.uniform(0.35, 1.0, size=9) * rng.uniform(0.1, 0.45) * reach
        stretch = rng.uniform(0.5, 1.3, size=2)
        outline = centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] * stretch
    polygon = np.round(outline * size * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [polygon], _clutter_colour(rng), cv2.LINE_AA, _SUBPIXEL_BITS)
    if parts is not None:
        cv2.fillPoly(parts, [polygon], (float(_OCCLUDER),), cv2.LINE_8, _SUBPIXEL_BITS)


def _occlude(canvas: Image, parts: NDArray[np.uint8], rng: Generator) -> None:
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 3))):
            _clutter(canvas, parts, rng, reach=0.6)


def _paint_coat(
    canvas: Image,
    parts: NDArray[np.uint8],
    pattern: Pattern,
    marking: Colour,
    to_pixels: NDArray[np.float64],
    rng: Generator,
) -> Image:
    """Paint the fur, the light from above and the pattern of the coat."""
    size = canvas.shape[0]
    fur = 0.78 + 0.3 * _noise(4, size, rng) + 0.22 * _noise(7, size, rng)
    light = fur * np.linspace(1.12, 0.84, size, dtype=np.float32)[:, None]
    on_animal = parts > 0
    painted = canvas.astype(np.float32)
    if pattern != "none":
        wearing = parts == LABEL["tail"] if pattern == "rings" else on_animal & (parts != LABEL["frontal_legs"])
        cover = _pattern(pattern, size, to_pixels, rng) * wearing
        painted += cover[..., None] * (np.array(marking, dtype=np.float32) - painted)
    painted *= np.where(on_animal, light, np.float32(1))[..., None]
    return _to_bytes(painted)


def _pattern(pattern: Pattern, size: int, to_pixels: NDArray[np.float64], rng: Generator) -> _Field:
    """Return the opacity of the marking's colour at each pixel, 0-1."""
    if pattern in ("stripes", "bands", "rings"):
        inverse = np.linalg.inv(to_pixels[:, :2])[0]
        columns, rows = np.arange(size) - to_pixels[0, 2], np.arange(size)[:, None] - to_pixels[1, 2]
        along = (inverse[0] * columns + inverse[1] * rows).astype(np.float32)
        period = 0.15 if pattern == "stripes" else 0.26
        wave = np.sin((along + 0.12 * _noise(4, size, rng)) * np.float32(2 * np.pi / period))
        return np.asarray(np.clip(wave * 3 - 0.6, 0, 0.88))
    octave, level = {"spots": (5, 0.6), "patches": (3, 0.52), "speckles": (6, 0.62)}[pattern]
    return np.asarray(np.clip((_noise(octave, size, rng) - level) * 12, 0, 0.92))


def _locate(at: Points, visible: int, parts: NDArray[np.uint8], to_pixels: NDArray[np.float64]) -> tuple[float, float]:
    """Return a landmark in pixel indices, NaN where hidden; `visible` counts the visible pixels of its part."""
    size = parts.shape[0]
    column, row = _transform(at, to_pixels)
    if not (0 <= row <= size - 1 and 0 <= column <= size - 1):
        return float("nan"), float("nan")
    if parts[round(row), round(column)] == _OCCLUDER or visible < _MIN_VISIBLE * parts.size:
        return float("nan"), float("nan")
    return float(row), float(column)


@cache
def part_labels(part: str) -> tuple[int, ...]:
    """Return every label of a part: the forehead belongs to the head, back and wings to the torso."""
    within = {"head": ("head", "forehead"), "torso": ("torso", "back", "wing")}
    return tuple(LABEL[name] for name in within.get(part, (part,)))


_DRAWN_AS = {
    "head": ("head", "forehead"),
    "torso": ("torso", "neck", "back", "wing"),
    "frontal_legs": ("frontal_legs",),
    "back_legs": ("legs",),
    "legs": ("frontal_legs", "legs"),
    "tail": ("tail",),
}
"""Drawn parts of each part in `Category.parts`, merged as in Sec. 5.2.1."""


def merge_parts(parts_SS: NDArray[np.uint8], parts: Sequence[str]) -> NDArray[np.uint8]:
    """Turn a map of drawn parts (S, S) into one whose bit k is set on the pixels of the k-th of `parts`."""
    merged = np.zeros(len(PARTS), np.uint8)
    for k, part in enumerate(parts):
        merged[[LABEL[drawn] for drawn in _DRAWN_AS[part]]] |= np.uint8(1 << k)
    return np.asarray(merged[parts_SS])


def _photograph(canvas: Image, rng: Generator) -> Image:
    """Apply exposure, a colour cast, a little blur and sensor noise."""
    size = canvas.shape[0]
    gain = rng.uniform(0.82, 1.15) * rng.uniform(0.97, 1.03, size=3)
    offset = rng.uniform(-10, 10)
    if rng.random() < 0.3:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.006 * size), dtype=np.uint8)
    grain = (_noise(8, size, rng) - 0.5) * rng.uniform(3, 10)
    return _to_bytes(canvas * gain.astype(np.float32) + (grain + np.float32(offset))[..., None])


__all__ = ["GENERATOR_VERSION", "PARTS", "Generated", "generate", "merge_parts", "part_labels"]
