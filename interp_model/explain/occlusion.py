"""Receptive fields of filters at image resolution, measured by occlusion after Zhou et al. [40] (Fig. 5).

Shape legend: S image side   F filters   H = W = n map side   G occluder places along an axis   B occluded images
              P = 2 S - 1 field side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

TOP_PLACES = 4
"""Number of occluder positions used per image: those that lower the activation most, as in the released code."""
REGION_THRESHOLD = 0.5
"""Threshold of an image's region, as a fraction of the receptive field's maximum."""

CPU_BATCH, DEVICE_BATCH = 8, 64
"""Number of occluded images per forward pass; on a device that of images of 224 px. On a CPU, the features of more do
not fit into the cache: with 32, EfficientNet-Lite0 takes nearly twice the time per image."""

Maps = Callable[[Tensor], Tensor]
"""Function from images (B, 3, S, S) to the filters' maps (B, F, H, W)."""


class Occluder(NamedTuple):
    """A square patch that slides over the image."""

    side: int
    """Side of the patch, pixels."""
    stride: int
    """Distance between neighbouring positions, pixels."""
    sigma: float
    """Standard deviation of the Gaussian that smooths receptive fields, pixels."""

    def places(self, image_side: int) -> list[int]:
        """Return the upper (or left) edges of all positions, pixels. The last one touches the border."""
        last = image_side - self.side
        return sorted({*range(0, last + 1, self.stride), last})


def occluder_for(image_side: int, *, stride_share: float = 9 / 224) -> Occluder:
    """Return the released code's occluder, 33 pixels at stride 9 and sigma 30 for 224 px, scaled to the image.

    Args:
        image_side: side of the image, pixels.
        stride_share: stride as a fraction of the image's side.
    """
    side = max(1, round(image_side * 33 / 224))
    return Occluder(side, max(1, round(image_side * stride_share)), image_side * 30 / 224)


def occluded_batch(image_side: int, device: torch.device) -> int:
    """Return the number of occluded images per forward pass; on a device as many as take the memory of `DEVICE_BATCH`.

    Args:
        image_side: side of the image, pixels.
        device: where the maps are computed.
    """
    return CPU_BATCH if device.type == "cpu" else max(1, round(DEVICE_BATCH * (224 / image_side) ** 2))


# Captum's `Occlusion` averages the drops into one number per pixel and cuts the last patch off at the border. The
# method needs the drop at each place of a whole patch, and here one pass measures all filters.
@torch.no_grad()
def occlusion_drop(maps: Maps, image_3SS: Tensor, occluder: Occluder, *, batch: int | None = None) -> Tensor:
    """Measure the drop of each filter's summed activation for every position of the occluder.

    Args:
        maps: computes the filters' maps.
        image_3SS: normalised image (see `to_input`). Hidden pixels become 0, the training set's mean.
        occluder: patch size and stride.
        batch: number of images per call of `maps`; it does not change the result. None chooses by device.

    Returns:
        (F, G, G), by row and column of the occluder; negative where occlusion increases the activation.
    """
    side, device = image_3SS.shape[-1], image_3SS.device
    places = occluder.places(side)
    count, batch = len(places), batch or occluded_batch(side, device)
    first_G1, pixel_S = torch.tensor(places, device=device)[:, None], torch.arange(side, device=device)
    is_hidden_GS = (pixel_S >= first_G1) & (pixel_S < first_G1 + occluder.side)
    whole_F = maps(image_3SS[None]).sum(dim=(0, 2, 3))
    left = []
    for corner_B in torch.split(torch.arange(count**2, device=device), batch):
        rows_BS1, columns_B1S = is_hidden_GS[corner_B // count, :, None], is_hidden_GS[corner_B % count, None]
        hidden_B3SS = image_3SS.masked_fill((rows_BS1 & columns_B1S)[:, None], 0)
        left.append(maps(hidden_B3SS).sum(dim=(2, 3)))
    return (whole_F - torch.cat(left)).T.reshape(-1, count, count)


def sensitivity_map(drop_GG: Tensor, occluder: Occluder, image_side: int) -> Tensor:
    """Return a filter's occlusion sensitivity on one image: the mean drop over the positions that hide each pixel.

    It is smoothed with a Gaussian of a third of the patch's side.

    Args:
        drop_GG: drops of one filter, see `occlusion_drop`; negative ones count as 0.
        occluder: patch size and stride.
        image_side: side of the image, pixels.

    Returns:
        (S, S), scaled to a maximum of 1; all 0 if no position lowers the activation.
    """
    places = occluder.places(image_side)
    sum_SS, count_SS = torch.zeros(image_side, image_side), torch.zeros(image_side, image_side)
    for g, row in enumerate(places):
        for h, column in enumerate(places):
            hidden = slice(row, row + occluder.side), slice(column, column + occluder.side)
            sum_SS[hidden] += drop_GG[g, h].clamp_min(0)
            count_SS[hidden] += 1
    return _scale_to_one(_smooth(sum_SS / count_SS, occluder.side / 3))


def aligned_field(
    drops: Sequence[Tensor], peaks: Sequence[tuple[float, float]], occluder: Occluder, image_side: int
) -> Tensor:
    """Return a filter's receptive field relative to its peak, averaged over images and smoothed (Fig. 5).

    On every image, the `TOP_PLACES` positions with the largest drop are marked and shifted so that the filter's peak is
    at the centre. Positions without a drop are not marked.

    Args:
        drops: drops of the filter, (G, G) per image, see `occlusion_drop`.
        peaks: (row, column) of the centre of the peak unit on each image, in pixels from the image's edge.
        occluder: patch size, stride and smoothing.
        image_side: side of the images, pixels.

    Returns:
        (P, P), scaled to a maximum of 1, with the peak at [S - 1, S - 1]; all 0 if no position lowers the activation.
    """
    places = occluder.places(image_side)
    field_PP = torch.zeros(2 * image_side - 1, 2 * image_side - 1)
    for drop_GG, peak in zip(drops, peaks, strict=True):
        row_shift, column_shift = (image_side - 1 - round(at - 0.5) for at in peak)
        lost, index = drop_GG.flatten().topk(min(TOP_PLACES, drop_GG.numel()))
        for place in index[lost > 0].tolist():
            row, column = places[place // len(places)] + row_shift, places[place % len(places)] + column_shift
            rows, columns = (slice(max(at, 0), max(at + occluder.side, 0)) for at in (row, column))
            field_PP[rows, columns] += 1
    return _scale_to_one(_smooth(field_PP, occluder.sigma))


def image_field(map_HW: Tensor, field_PP: Tensor, centre_H: Tensor) -> Tensor:
    """Return a filter's receptive field on one image: the maximum over units of x_ij times the field around the unit.

    Args:
        map_HW: the filter's map after ReLU and, in an interpretable layer, after the mask.
        field_PP: receptive field relative to the peak, see `aligned_field`.
        centre_H: centres of the units along one axis, in pixels from the image's edge; may lie outside.

    Returns:
        (S, S), scaled to a maximum of 1; all 0 for a map of zeros. The image's region is where it exceeds
        `REGION_THRESHOLD`.
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
    return _scale_to_one(region_SS)


def _window(pixel: int, side: int) -> tuple[slice, slice] | None:
    """Return the overlap, as slices of image and field along one axis, with the field's centre at `pixel`; or None."""
    first = pixel - (side - 1)
    start, end = max(first, 0), min(first + 2 * side - 1, side)
    return (slice(start, end), slice(start - first, end - first)) if start < end else None


def _smooth(field_PP: Tensor, sigma: float) -> Tensor:
    """Smooth with a Gaussian cut off at 25/30 sigma: 50 pixels wide at sigma 30, as in the released code."""
    radius = max(1, round(sigma * 25 / 30))
    return torch.from_numpy(gaussian_filter(field_PP.numpy(), sigma, mode="constant", radius=radius))


def _scale_to_one(value: Tensor) -> Tensor:
    highest = value.max()
    return value / highest if highest > 0 else value
