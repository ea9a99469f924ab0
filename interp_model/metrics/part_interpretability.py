"""Part interpretability: how often the region where a filter fires is one and the same part of the animal (Sec. 5.2.1).

Shape legend: N images   F filters   H = W = n map side   P = n*n units   S input side   X = S*S pixels   K parts
              C cells: sets of pixels that every region covers together   M units of all images   R ranks, best first
              V valid units   B bytes   G regions, of one filter on one image each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MIN_IOU = 0.2
"""A region that overlaps a part by more than this is associated with it."""

_TOGETHER = {"cpu": 2**19}
"""Cells of the regions that are held at once: what a core's cache holds, and four times faster than without bound."""

_TOGETHER_ELSEWHERE = 2**26
"""On a GPU, which has to be asked rarely."""


class PartInterpretability(NamedTuple):
    """No unit, from 0 to 1, higher is better; NaN where nothing can be said."""

    per_filter_F: Tensor
    """P_f = max_k P_fk; NaN for a filter that never fires, or where no part was seen."""
    per_part_FK: Tensor
    """P_fk; NaN where no image shows part k."""
    images_K: Tensor
    """int64: how many images show each part."""

    @property
    def left_out_F(self) -> Tensor:
        """bool: filters without a value, which no mean counts."""
        return self.per_filter_F.isnan()

    @property
    def mean(self) -> float:
        """The average over the filters that have a value: the figure of Tables 1 and 2."""
        return self.per_filter_F.nanmean().item()

    @property
    def best_part_F(self) -> Tensor:
        """int64: the part that P_f is about; means nothing where that is NaN."""
        return self.per_part_FK.nan_to_num(nan=-1.0).argmax(dim=1)


class Regions(Protocol):
    """How valid units become a region of the image: one rule for ordinary and interpretable networks alike."""

    size_C: Tensor
    """Pixels of every cell, float."""

    def cover(self, x_GHW: Tensor, threshold_G: Tensor) -> Tensor:
        """S_f of single maps: (G, C), 1 where the region covers a cell and 0 elsewhere."""

    def count(self, mask_NKSS: Tensor) -> Tensor:
        """Pixels of every part in every cell: (N, C, K), float."""


class RoundRegions:
    """A disc around the receptive field's centre of every unit above T_f, overlapped (footnote 5).

    Pixels that lie in the same discs are covered together whatever fires, so they are one cell. That makes everything
    several times smaller and changes no count.
    """

    def __init__(self, centre_H: Tensor, side: int, radius: float) -> None:
        """Args:
        centre_H: of the units along one axis, in pixels from the image's edge; may lie outside.
        side: of the image, pixels.
        radius: of the disc, pixels.
        """
        pixel_S = torch.arange(side, dtype=torch.float64, device=centre_H.device) + 0.5
        square_HS = (pixel_S - centre_H.double()[:, None]).square()
        disc_PX = (square_HS[:, None, :, None] + square_HS[None, :, None, :] <= radius**2).flatten(0, 1).flatten(1)
        first_C, cell_X, size_C = _same_columns(disc_PX)
        self._cell_X = cell_X
        self._disc_PC = disc_PX[:, first_C].float()
        self.size_C = size_C.float()

    def cover(self, x_GHW: Tensor, threshold_G: Tensor) -> Tensor:
        valid_GP = (x_GHW > threshold_G[:, None, None]).flatten(1)
        count_G = valid_GP.sum(dim=1)
        # Hardly any unit is valid, so adding up the discs of those that are is cheaper than a product with all.
        unit_V, first_G = torch.nonzero(valid_GP)[:, 1], count_G.cumsum(dim=0) - count_G
        return functional.embedding_bag(unit_V, self._disc_PC, first_G, mode="sum").clamp_max_(1)

    def count(self, mask_NKSS: Tensor) -> Tensor:
        mask_NKX = mask_NKSS.flatten(2).float()
        count_NKC = mask_NKX.new_zeros(*mask_NKX.shape[:2], len(self.size_C))
        return count_NKC.index_add_(2, self._cell_X, mask_NKX).transpose(1, 2)


class BilinearRegions:
    """Network Dissection's own rule [2]: the map, scaled up between the units' centres, wherever it exceeds T_f.

    Beyond the outermost centres the map goes on as it is there.
    """

    def __init__(self, centre_H: Tensor, side: int) -> None:
        """Args:
        centre_H: of the units along one axis, in pixels from the image's edge, evenly spaced; may lie outside.
        side: of the image, pixels.
        """
        pixel_S = torch.arange(side, dtype=torch.float64, device=centre_H.device) + 0.5
        n, first = len(centre_H), centre_H[0].double()
        stride = centre_H[1].double() - first if n > 1 else torch.ones_like(first)
        unit_S = ((pixel_S - first) / stride).clamp(0, n - 1)
        away_SH = (unit_S[:, None] - torch.arange(n, dtype=torch.float64, device=centre_H.device)).abs()
        self._up_SH = (1 - away_SH).clamp_min(0).float()
        self.size_C = torch.ones(side * side, device=centre_H.device)

    def cover(self, x_GHW: Tensor, threshold_G: Tensor) -> Tensor:
        # Columns first, so that each step is one large product; rows and columns are exchanged in the result.
        wide_GSH = (x_GHW.float() @ self._up_SH.T).transpose(1, 2)
        return (wide_GSH @ self._up_SH.T > threshold_G[:, None, None]).flatten(1).float()

    def count(self, mask_NKSS: Tensor) -> Tensor:
        return mask_NKSS.transpose(2, 3).flatten(2).transpose(1, 2).float()


def merge_top(top_FR: Tensor, x_NFHW: Tensor, keep: int) -> Tensor:
    """The `keep` highest activations of every filter among those kept so far and those of some more images.

    Only (F, keep) values are held, however many images there are; the order of the images does not matter.

    Args:
        top_FR: what the last call returned; of shape (F, 0) at first.
    """
    x_FM = torch.cat([top_FR, x_NFHW.transpose(0, 1).flatten(1)], dim=1)
    return x_FM.topk(min(keep, x_FM.shape[1]), dim=1).values


def valid_units(share: float, units: int) -> int:
    """How many of a filter's units, over all positions of all images, are to exceed T_f: at least one."""
    return max(1, round(share * units))


def activation_thresholds(top_FR: Tensor, valid: int) -> Tensor:
    """T_f with p(x_ij > T_f) = 0.005: the highest activation that is not valid itself, (F,).

    Where fewer units fire at all, T_f is 0 and all that fire are valid.

    Args:
        top_FR: at least the `valid + 1` highest activations, from `merge_top`.
        valid: see `valid_units`.
    """
    return top_FR[:, min(valid, top_FR.shape[1] - 1)]


def part_interpretability(
    looked: Iterable[tuple[Tensor, Tensor]], threshold_F: Tensor, regions: Regions
) -> PartInterpretability:
    """P_fk = mean_{I with part k} 1(IoU_fk > 0.2) and P_f = max_k P_fk.

    The paper prints the first as a maximum over images and calls it a probability: it is the mean. A part that an image
    does not show does not count there.

    Args:
        looked: maps after ReLU and mask, (N, F, H, W), and parts, (N, K, S, S) bool, of some images at a time.
        threshold_F: T_f, see `activation_thresholds`.
        regions: from valid units to pixels.
    """
    hits, shown = [], []
    fires_F = torch.zeros_like(threshold_F, dtype=torch.bool)
    for x_NFHW, mask_NKSS in looked:
        fires_F |= (x_NFHW > 0).any(dim=0).flatten(1).any(dim=1)
        shown.append(mask_NKSS.flatten(2).any(dim=2))
        hits.append(associated(x_NFHW, mask_NKSS, threshold_F, regions).sum(dim=0))
    images_K = torch.cat(shown).sum(dim=0)
    per_part_FK = (torch.stack(hits).sum(dim=0).double() / images_K).where(fires_F[:, None], torch.nan)
    highest_F = per_part_FK.nan_to_num(nan=-1.0).amax(dim=1)
    return PartInterpretability(highest_F.where(highest_F >= 0, torch.nan), per_part_FK, images_K)


def associated(x_NFHW: Tensor, mask_NKSS: Tensor, threshold_F: Tensor, regions: Regions) -> Tensor:
    """1(IoU_fk > 0.2) on every image, false for parts that it does not show: (N, F, K), bool."""
    # Most filters have no valid unit on most images, and a region takes one.
    image_G, filter_G = torch.nonzero((x_NFHW.flatten(2) > threshold_F[:, None]).any(dim=2), as_tuple=True)
    part_NCK = regions.count(mask_NKSS)
    part_NK = part_NCK.sum(dim=1).double()
    hit_NFK = torch.zeros(*x_NFHW.shape[:2], mask_NKSS.shape[1], dtype=torch.bool, device=x_NFHW.device)
    together = max(1, _TOGETHER.get(x_NFHW.device.type, _TOGETHER_ELSEWHERE) // part_NCK.shape[1])
    for some_N, some_F in zip(torch.split(image_G, together), torch.split(filter_G, together), strict=True):
        region_GC = regions.cover(x_NFHW[some_N, some_F], threshold_F[some_F])
        both_GK = _in_parts(region_GC, some_N, part_NCK)
        area_G1 = (region_GC @ regions.size_C).double()[:, None]
        part_GK = part_NK[some_N]
        hit_NFK[some_N, some_F] = (both_GK / (area_G1 + part_GK - both_GK) > MIN_IOU) & (part_GK > 0)
    return hit_NFK


def _in_parts(region_GC: Tensor, image_G: Tensor, part_NCK: Tensor) -> Tensor:
    """Pixels of each region in each part of its own image, the regions of an image lying side by side: (G, K)."""
    images, counts = torch.unique_consecutive(image_G, return_counts=True)
    of_image = zip(images.tolist(), torch.split(region_GC, counts.tolist()), strict=True)
    return torch.cat([region @ part_NCK[n] for n, region in of_image]).double()


def _same_columns(bits_PX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct columns of a table of bits: where each is first met, which one every column is, how many are."""
    packed_XB = np.packbits(bits_PX.cpu().numpy(), axis=0).T.copy()
    rows_X = packed_XB.view(np.dtype((np.void, packed_XB.shape[1]))).ravel()
    _, *found = np.unique(rows_X, return_index=True, return_inverse=True, return_counts=True)
    first_C, cell_X, size_C = (torch.from_numpy(part).to(bits_PX.device) for part in found)
    return first_C, cell_X, size_C
