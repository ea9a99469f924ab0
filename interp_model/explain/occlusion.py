"""What a filter looks for, at the resolution of the image: found by hiding parts of it, after Zhou et al. [40].

Shape legend: S image side   F filters   H = W = n map side   G occluder places along an axis   B occluded images
              P = 2 S - 1 field side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

KEPT = 4
"""Places of the occluder that count for an image: those that cost the filter most, as in the released code."""
CUT = 0.5
"""An image's region is where the receptive field reaches this share of its highest value."""

Maps = Callable[[Tensor], Tensor]
"""From images (B, 3, S, S) to the filters' maps (B, F, H, W)."""


class Occluder(NamedTuple):
    """A square that hides a part of the image; in pixels."""

    side: int
    stride: int
    sigma: float
    """Of the gaussian that smooths what it found."""

    def places(self, image_side: int) -> list[int]:
        """Its upper or left edges; the last one touches the border, so that no pixel is never hidden."""
        last = image_side - self.side
        return sorted({*range(0, last + 1, self.stride), last})


def occluder_for(image_side: int, *, stride_share: float = 9 / 224) -> Occluder:
    """The released code's 33 pixels at stride 9, smoothed with sigma 30, on an image of 224; else in proportion.

    Args:
        stride_share: of the image's side.
    """
    side = max(1, round(image_side * 33 / 224))
    return Occluder(side, max(1, round(image_side * stride_share)), image_side * 30 / 224)


@torch.no_grad()
def occlusion_drop(maps: Maps, image_3SS: Tensor, occluder: Occluder, *, batch: int = 64) -> Tensor:
    """How much of each filter's summed activation is lost while the occluder hides a place.

    Args:
        image_3SS: as the network takes it. What is hidden becomes 0, the training set's mean: about grey.
        batch: images that `maps` is given at a time; with no influence on the result.

    Returns:
        (F, G, G), by the occluder's row and column. Negative where hiding a place makes the filter stronger.
    """
    places = occluder.places(image_3SS.shape[-1])
    corners = [(row, column) for row in places for column in places]
    whole_F = maps(image_3SS[None]).sum(dim=(0, 2, 3))
    left = []
    for start in range(0, len(corners), batch):
        some = corners[start : start + batch]
        hidden_B3SS = image_3SS.repeat(len(some), 1, 1, 1)
        for hidden_3SS, (row, column) in zip(hidden_B3SS, some, strict=True):
            hidden_3SS[:, row : row + occluder.side, column : column + occluder.side] = 0
        left.append(maps(hidden_B3SS).sum(dim=(2, 3)))
    return (whole_F - torch.cat(left)).T.reshape(-1, len(places), len(places))


def lost_where(drop_GG: Tensor, occluder: Occluder, image_side: int) -> Tensor:
    """What a filter lost on one image, pixel by pixel: the mean over the places of the occluder that hid the pixel,
    smoothed by a third of its side.

    Returns:
        (S, S), 1 at its highest; all 0 where hiding anything never cost anything.
    """
    places = occluder.places(image_side)
    sum_SS, count_SS = torch.zeros(image_side, image_side), torch.zeros(image_side, image_side)
    for g, row in enumerate(places):
        for h, column in enumerate(places):
            hidden = slice(row, row + occluder.side), slice(column, column + occluder.side)
            sum_SS[hidden] += drop_GG[g, h].clamp_min(0)
            count_SS[hidden] += 1
    return _to_one(_smooth(sum_SS / count_SS, occluder.side / 3))


def aligned_field(
    drops: Sequence[Tensor], peaks: Sequence[tuple[float, float]], occluder: Occluder, image_side: int
) -> Tensor:
    """A filter's receptive field: what mattered around its peak, averaged over images and smoothed.

    On every image the `KEPT` places that cost the filter most are marked and moved so that the filter's peak comes to
    the centre. Places that cost it nothing are not marked.

    Args:
        drops: of the filter, one (G, G) per image.
        peaks: (row, column) of the centre of the unit that peaks, in pixels from the image's edge; as many.

    Returns:
        (P, P), 1 at its highest, about the peak at [S - 1, S - 1]; all 0 where hiding anything never cost anything.
    """
    places = occluder.places(image_side)
    field_PP = torch.zeros(2 * image_side - 1, 2 * image_side - 1)
    for drop_GG, peak in zip(drops, peaks, strict=True):
        row_shift, column_shift = (image_side - 1 - round(at - 0.5) for at in peak)
        lost, index = drop_GG.flatten().topk(min(KEPT, drop_GG.numel()))
        for place in index[lost > 0].tolist():
            row, column = places[place // len(places)] + row_shift, places[place % len(places)] + column_shift
            rows, columns = (slice(max(at, 0), max(at + occluder.side, 0)) for at in (row, column))
            field_PP[rows, columns] += 1
    return _to_one(_smooth(field_PP, occluder.sigma))


def image_field(map_HW: Tensor, field_PP: Tensor, centre_H: Tensor) -> Tensor:
    """The receptive field of a filter's activations on one image: max over units of x_ij times the field around it.

    Args:
        map_HW: after ReLU, and after the mask where the layer has one.
        centre_H: of the units along one axis, in pixels from the image's edge; may lie outside.

    Returns:
        (S, S), 1 at its highest; all 0 for a map that is silent. Where it exceeds `CUT` is the image's region.
    """
    side = (len(field_PP) + 1) // 2
    pixel_H = (centre_H - 0.5).round().long().tolist()
    region_SS = torch.zeros(side, side)
    for i, j in torch.nonzero(map_HW > 0).tolist():
        rows, columns = _window(pixel_H[i], side), _window(pixel_H[j], side)
        if rows is None or columns is None:
            continue
        (to_rows, from_rows), (to_columns, from_columns) = rows, columns
        around = map_HW[i, j] * field_PP[from_rows, from_columns]
        region_SS[to_rows, to_columns] = torch.maximum(region_SS[to_rows, to_columns], around)
    return _to_one(region_SS)


def _window(pixel: int, side: int) -> tuple[slice, slice] | None:
    """Where on an axis of the image, and of the field, both are when the field's centre lies on a pixel."""
    first = pixel - (side - 1)
    start, end = max(first, 0), min(first + 2 * side - 1, side)
    return (slice(start, end), slice(start - first, end - first)) if start < end else None


def _smooth(field_PP: Tensor, sigma: float) -> Tensor:
    """With a gaussian that is cut off at 50/60 sigma to either side: 50 pixels wide at sigma 30, as released."""
    reach = max(1, round(sigma * 25 / 30))
    away_X = torch.arange(-reach, reach + 1, dtype=field_PP.dtype)
    weight_X = torch.exp(-away_X.square() / (2 * sigma**2))
    weight_X = weight_X / weight_X.sum()
    along_rows = functional.conv2d(field_PP[None, None], weight_X[None, None, :, None], padding=(reach, 0))
    return functional.conv2d(along_rows, weight_X[None, None, None, :], padding=(0, reach))[0, 0]


def _to_one(value: Tensor) -> Tensor:
    highest = value.max()
    return value / highest if highest > 0 else value
