"""What every source of images gives: pictures that are rows of prepared sets, on two sides of a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from workers.data.prepared.image_sets import ImageSet


class Picture(NamedTuple):
    """One row of a prepared set."""

    set: ImageSet
    row: int
    category: str
    is_positive: bool
    photograph: str
    """Name of the photograph, equal for all its objects."""
    open_parts: Callable[[], ImageSet] | None
    """Opens the set with this picture's part map in the same row; None without masks."""
    label: str = ""
    """Species or kind of a photograph, where labels are these."""
    is_mirrored: bool = False
    """Whether the picture is flipped left to right."""


class Sides(NamedTuple):
    """The pictures of a split."""

    train: list[Picture]
    test: list[Picture]
