"""Part interpretability: how often the region where a filter fires is one and the same part of the animal (Sec. 5.2.1).

Shape legend: N images   F filters   H = W = n map side   P = n*n units   S input side   X = S*S pixels   K parts
              C cells: sets of pixels that every region covers together   M units of all images   R ranks, best first
              V valid units   B bytes.
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

_TOGETHER = 2**19
"""Cells of the regions that are held at once: what a core's cache holds, and four times faster than without bound."""


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

    def cover(self, x_FHW: Tensor, threshold_F: Tensor) -> Tensor:
        """S_f of one image: (F, C), 1 where the region covers a cell and 0 elsewhere."""

    def count(self, mask_KSS: Tensor) -> Tensor:
        """Pixels of every part in every cell: (C, K), float."""


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

    def cover(self, x_FHW: Tensor, threshold_F: Tensor) -> Tensor:
        valid_FP = (x_FHW > threshold_F[:, None, None]).flatten(1)
        count_F = valid_FP.sum(dim=1)
        # Hardly any unit is valid, so adding up the discs of those that are is cheaper than a product with all.
        unit_V, first_F = torch.nonzero(valid_FP)[:, 1], count_F.cumsum(dim=0) - count_F
        return functional.embedding_bag(unit_V, self._disc_PC, first_F, mode="sum").clamp_max_(1)

    def count(self, mask_KSS: Tensor) -> Tensor:
        mask_XK = mask_KSS.flatten(1).T.float()
        return mask_XK.new_zeros(len(self.size_C), mask_XK.shape[1]).index_add_(0, self._cell_X, mask_XK)


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

    def cover(self, x_FHW: Tensor, threshold_F: Tensor) -> Tensor:
        # Columns first, so that each step is one large product; rows and columns are exchanged in the result.
        wide_FSH = (x_FHW.float() @ self._up_SH.T).transpose(1, 2)
        return (wide_FSH @ self._up_SH.T > threshold_F[:, None, None]).flatten(1).float()

    def count(self, mask_KSS: Tensor) -> Tensor:
        return mask_KSS.transpose(1, 2).flatten(1).T.float()


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
        hits += [associated(x, mask, threshold_F, regions) for x, mask in zip(x_NFHW, mask_NKSS, strict=True)]
    images_K = torch.cat(shown).sum(dim=0)
    per_part_FK = (torch.stack(hits).sum(dim=0).double() / images_K).where(fires_F[:, None], torch.nan)
    highest_F = per_part_FK.nan_to_num(nan=-1.0).amax(dim=1)
    return PartInterpretability(highest_F.where(highest_F >= 0, torch.nan), per_part_FK, images_K)


def associated(x_FHW: Tensor, mask_KSS: Tensor, threshold_F: Tensor, regions: Regions) -> Tensor:
    """1(IoU_fk > 0.2) on one image, false for parts that it does not show: (F, K), bool."""
    hit_FK = torch.zeros(len(x_FHW), len(mask_KSS), dtype=torch.bool, device=x_FHW.device)
    # Most filters have no valid unit on most images, and a region takes one.
    valid_F = torch.nonzero((x_FHW.flatten(1) > threshold_F[:, None]).any(dim=1)).squeeze(dim=1)
    part_CK = regions.count(mask_KSS)
    part_K = part_CK.sum(dim=0).double()
    for some_F in torch.split(valid_F, max(1, _TOGETHER // len(part_CK))):
        region_FC = regions.cover(x_FHW[some_F], threshold_F[some_F])
        both_FK = (region_FC @ part_CK).double()
        area_F1 = (region_FC @ regions.size_C).double()[:, None]
        hit_FK[some_F] = (both_FK / (area_F1 + part_K - both_FK) > MIN_IOU) & (part_K > 0)
    return hit_FK


def _same_columns(bits_PX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct columns of a table of bits: where each is first met, which one every column is, how many are."""
    packed_XB = np.packbits(bits_PX.cpu().numpy(), axis=0).T.copy()
    rows_X = packed_XB.view(np.dtype((np.void, packed_XB.shape[1]))).ravel()
    _, *found = np.unique(rows_X, return_index=True, return_inverse=True, return_counts=True)
    first_C, cell_X, size_C = (torch.from_numpy(part).to(bits_PX.device) for part in found)
    return first_C, cell_X, size_C
