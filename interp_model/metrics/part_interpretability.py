"""Part interpretability: how often a filter's region matches the same part of the animal (Sec. 5.2.1).

Shape legend: N images   F filters   H = W = n map side   P = n*n units   S input side   X = S*S pixels   K parts
              C cells: sets of pixels that no region separates   M units of all images   R ranks, best first
              V valid units   B bytes   W words of 8 bytes   G regions, of one filter on one image each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MIN_IOU = 0.2
"""IoU above which a region is associated with a part (Sec. 5.2.1)."""

_CHUNK = {"cpu": 2**19}
"""Number of cells that are computed at once on a CPU, chosen to fit the cache; four times faster than without limit."""

_CHUNK_ELSEWHERE = 2**26
"""The same on a GPU, where few large calls are faster."""


class PartInterpretability(NamedTuple):
    """Part interpretability of a layer: from 0 to 1, higher is better; NaN where it is undefined."""

    per_filter_F: Tensor
    """P_f = max_k P_fk: (F,). NaN for a filter that never fires, or if no image shows a part."""
    per_part_FK: Tensor
    """P_fk: (F, K). NaN if no image shows part k."""
    images_K: Tensor
    """int64: number of images that show each part: (K,)."""

    @property
    def left_out_F(self) -> Tensor:
        """bool: filters without a value, which are excluded from the mean: (F,)."""
        return self.per_filter_F.isnan()

    @property
    def mean(self) -> float:
        """Mean of P_f over the filters with a value, as in Tables 1 and 2."""
        return self.per_filter_F.nanmean().item()

    @property
    def best_part_F(self) -> Tensor:
        """int64: index of the part with the highest P_fk; undefined where P_f is NaN: (F,)."""
        return self.per_part_FK.nan_to_num(nan=-1.0).argmax(dim=1)


class Regions(Protocol):
    """Rule that turns valid units into a region of the image, the same for ordinary and interpretable networks."""

    size_C: Tensor
    """Number of pixels of each cell, float: (C,)."""

    def cover(self, x_GHW: Tensor, threshold_G: Tensor) -> Tensor:
        """Return the regions S_f of single maps.

        Args:
            x_GHW: maps after ReLU and mask.
            threshold_G: T_f of each map's filter.

        Returns:
            (G, C), float: 1 for cells inside the region, 0 elsewhere.
        """

    def count(self, mask_NKSS: Tensor) -> Tensor:
        """Return the number of pixels of each part in each cell: (N, C, K), float.

        Args:
            mask_NKSS: part masks, bool.
        """

    def count_bits(self, bits_NSS: Tensor, bit_K: Sequence[int]) -> Tensor:
        """Return what `count` returns, from maps with one bit for each of up to eight parts.

        Args:
            bits_NSS: uint8.
            bit_K: the bit of each part as a number; 0 for parts that none of these images shows.
        """


class RoundRegions:
    """Union of discs around the receptive-field centres of all units above T_f (footnote 5).

    Pixels that lie in the same discs form one cell. This makes the computation several times smaller and is exact.

    Args:
        centre_H: centres of the units along one axis, in pixels from the image's edge; may lie outside.
        side: side of the image, pixels.
        radius: radius of the discs, pixels.
    """

    def __init__(self, centre_H: Tensor, side: int, radius: float) -> None:
        pixel_S = torch.arange(side, dtype=torch.float64, device=centre_H.device) + 0.5
        square_HS = (pixel_S - centre_H.double()[:, None]).square()
        disc_PX = (square_HS[:, None, :, None] + square_HS[None, :, None, :] <= radius**2).flatten(0, 1).flatten(1)
        first_C, cell_X, size_C = _same_columns(disc_PX)
        self._cell_X = cell_X
        self._disc_PC = disc_PX[:, first_C].float()
        self.size_C = size_C.float()
        self._field = int(size_C.max()).bit_length()

    def cover(self, x_GHW: Tensor, threshold_G: Tensor) -> Tensor:
        """Return the regions of single maps, see `Regions.cover`."""
        valid_GP = (x_GHW > threshold_G[:, None, None]).flatten(1)
        count_G = valid_GP.sum(dim=1)
        # Few units are valid, so summing their discs is cheaper than a matrix product over all units.
        unit_V, first_G = torch.nonzero(valid_GP)[:, 1], count_G.cumsum(dim=0) - count_G
        return functional.embedding_bag(unit_V, self._disc_PC, first_G, mode="sum").clamp_max_(1)

    def count(self, mask_NKSS: Tensor) -> Tensor:
        """Return the pixels of each part in each cell, see `Regions.count`."""
        return torch.cat([self.count_bits(*pack(some_NkSS)) for some_NkSS in torch.split(mask_NKSS, 8, dim=1)], dim=2)

    def count_bits(self, bits_NSS: Tensor, bit_K: Sequence[int]) -> Tensor:
        """Return the pixels of each part in each cell, see `Regions.count_bits`."""
        count_NCK = bits_NSS.new_zeros(len(bits_NSS), len(self.size_C), len(bit_K), dtype=torch.float32)
        shown = [k for k, bit in enumerate(bit_K) if bit]
        # One sum of 64-bit numbers counts several parts, each in as many bits as the largest cell needs.
        at_once = 63 // self._field
        for some in (shown[start : start + at_once] for start in range(0, len(shown), at_once)):
            shifts = [self._field * place for place in range(len(some))]
            words = [
                sum(1 << shift for shift, k in zip(shifts, some, strict=True) if bits & bit_K[k]) for bits in range(256)
            ]
            # index_select takes a third of the time of words[bits].
            word_X = torch.tensor(words, device=bits_NSS.device).index_select(0, bits_NSS.flatten().int())
            word_NX = word_X.view(len(bits_NSS), -1)
            sum_NC = word_NX.new_zeros(count_NCK.shape[:2]).index_add_(1, self._cell_X, word_NX)
            for shift, k in zip(shifts, some, strict=True):
                count_NCK[:, :, k] = (sum_NC >> shift) & ((1 << self._field) - 1)
        return count_NCK


class BilinearRegions:
    """Network Dissection's rule [2]: pixels where the bilinearly upsampled map exceeds T_f.

    Beyond the outermost centres the map is extended by its border values. Each pixel is a cell.

    Args:
        centre_H: centres of the units along one axis, evenly spaced, in pixels from the image's edge; may lie outside.
        side: side of the image, pixels.
    """

    def __init__(self, centre_H: Tensor, side: int) -> None:
        pixel_S = torch.arange(side, dtype=torch.float64, device=centre_H.device) + 0.5
        n, first = len(centre_H), centre_H[0].double()
        stride = centre_H[1].double() - first if n > 1 else torch.ones_like(first)
        unit_S = ((pixel_S - first) / stride).clamp(0, n - 1)
        distance_SH = (unit_S[:, None] - torch.arange(n, dtype=torch.float64, device=centre_H.device)).abs()
        self._up_SH = (1 - distance_SH).clamp_min(0).float()
        self.size_C = torch.ones(side * side, device=centre_H.device)

    def cover(self, x_GHW: Tensor, threshold_G: Tensor) -> Tensor:
        """Return the regions of single maps, see `Regions.cover`."""
        # Columns first, so that each step is one large matrix product. The result has rows and columns exchanged.
        wide_GSH = (x_GHW.float() @ self._up_SH.T).transpose(1, 2)
        return (wide_GSH @ self._up_SH.T > threshold_G[:, None, None]).flatten(1).float()

    def count(self, mask_NKSS: Tensor) -> Tensor:
        """Return the pixels of each part in each cell, see `Regions.count`."""
        return mask_NKSS.transpose(2, 3).flatten(2).transpose(1, 2).float()

    def count_bits(self, bits_NSS: Tensor, bit_K: Sequence[int]) -> Tensor:
        """Return the pixels of each part in each cell, see `Regions.count_bits`."""
        bits_K11 = torch.tensor(bit_K, dtype=torch.uint8, device=bits_NSS.device)[:, None, None]
        return self.count((bits_NSS[:, None] & bits_K11) > 0)


def pack(mask_NKSS: Tensor) -> tuple[Tensor, list[int]]:
    """Return the masks of up to eight parts as `Regions.count_bits` takes them."""
    bit_K = [1 << k for k in range(mask_NKSS.shape[1])]
    bits_K11 = torch.tensor(bit_K, dtype=torch.uint8, device=mask_NKSS.device)[:, None, None]
    return (mask_NKSS * bits_K11).sum(dim=1, dtype=torch.uint8), bit_K


def merge_top(top_FR: Tensor, x_NFHW: Tensor, keep: int) -> Tensor:
    """Return the `keep` highest activations of every filter over the previous images and a new batch.

    The result does not depend on the order of the images.

    Args:
        top_FR: result of the previous call; shape (F, 0) for the first.
        x_NFHW: maps of the new images.
        keep: maximum number of activations per filter.

    Returns:
        (F, R), in descending order.
    """
    x_FM = torch.cat([top_FR, x_NFHW.transpose(0, 1).flatten(1)], dim=1)
    return x_FM.topk(min(keep, x_FM.shape[1]), dim=1).values


def valid_units(share: float, units: int) -> int:
    """Return the number of a filter's units, over all positions of all images, that exceed T_f: at least 1.

    Args:
        share: p(x_ij > T_f).
        units: number of units over all images.
    """
    return max(1, round(share * units))


def activation_thresholds(top_FR: Tensor, valid: int) -> Tensor:
    """Return T_f with p(x_ij > T_f) = 0.005 (Sec. 5.2.1): the highest activation that is not valid.

    If a filter has fewer active units, T_f is 0 and all active units are valid.

    Args:
        top_FR: at least the `valid + 1` highest activations, see `merge_top`.
        valid: number of valid units, see `valid_units`.

    Returns:
        (F,).
    """
    return top_FR[:, min(valid, top_FR.shape[1] - 1)]


def part_interpretability(
    batches: Iterable[tuple[Tensor, Tensor]], threshold_F: Tensor, regions: Regions
) -> PartInterpretability:
    """Return P_fk = mean_{I with part k} 1(IoU_fk > 0.2) and P_f = max_k P_fk (Sec. 5.2.1).

    The paper prints P_fk as a maximum over images but calls it a probability; it is the mean over the images that show
    the part.

    Args:
        batches: maps after ReLU and mask, (N, F, H, W), and the pixels of each part in each cell, (N, C, K) of
            `Regions.count`, of each batch of images.
        threshold_F: T_f, see `activation_thresholds`.
        regions: rule that turns valid units into pixels.
    """
    hits, shown = [], []
    fires_F = torch.zeros_like(threshold_F, dtype=torch.bool)
    for x_NFHW, part_NCK in batches:
        fires_F |= x_NFHW.amax(dim=(0, 2, 3)) > 0
        shown.append(part_NCK.sum(dim=1) > 0)
        hits.append(associated(x_NFHW, part_NCK, threshold_F, regions).sum(dim=0))
    images_K = torch.cat(shown).sum(dim=0)
    per_part_FK = (torch.stack(hits).sum(dim=0).double() / images_K).where(fires_F[:, None], torch.nan)
    highest_F = per_part_FK.nan_to_num(nan=-1.0).amax(dim=1)
    return PartInterpretability(highest_F.where(highest_F >= 0, torch.nan), per_part_FK, images_K)


def associated(x_NFHW: Tensor, part_NCK: Tensor, threshold_F: Tensor, regions: Regions) -> Tensor:
    """Return 1(IoU_fk > 0.2) for every image, filter and part; false for parts that an image does not show.

    Args:
        x_NFHW: maps after ReLU and mask.
        part_NCK: pixels of each part in each cell, see `Regions.count`.
        threshold_F: T_f, see `activation_thresholds`.
        regions: rule that turns valid units into pixels.

    Returns:
        (N, F, K), bool.
    """
    # Most filters have no valid unit, and so no region, on most images.
    image_G, filter_G = torch.nonzero((x_NFHW.flatten(2) > threshold_F[:, None]).any(dim=2), as_tuple=True)
    part_NK = part_NCK.sum(dim=1).double()
    hit_NFK = torch.zeros(*x_NFHW.shape[:2], part_NCK.shape[2], dtype=torch.bool, device=x_NFHW.device)
    chunk = max(1, _CHUNK.get(x_NFHW.device.type, _CHUNK_ELSEWHERE) // part_NCK.shape[1])
    for some_N, some_F in zip(torch.split(image_G, chunk), torch.split(filter_G, chunk), strict=True):
        region_GC = regions.cover(x_NFHW[some_N, some_F], threshold_F[some_F])
        both_GK = _in_parts(region_GC, some_N, part_NCK)
        area_G1 = (region_GC @ regions.size_C).double()[:, None]
        part_GK = part_NK[some_N]
        hit_NFK[some_N, some_F] = (both_GK / (area_G1 + part_GK - both_GK) > MIN_IOU) & (part_GK > 0)
    return hit_NFK


def _in_parts(region_GC: Tensor, image_G: Tensor, part_NCK: Tensor) -> Tensor:
    """Return the pixels of each region in each part of its image: (G, K). The regions of an image must be adjacent."""
    if not len(image_G):
        return torch.zeros(0, part_NCK.shape[2], dtype=torch.float64, device=region_GC.device)
    images, counts = torch.unique_consecutive(image_G, return_counts=True)
    of_image = zip(images.tolist(), torch.split(region_GC, counts.tolist()), strict=True)
    return torch.cat([region @ part_NCK[n] for n, region in of_image]).double()


def _same_columns(bits_PX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distinct columns of a bit table: first index of each, group of every column, size of each group."""
    bytes_BX = np.packbits(bits_PX.cpu().numpy(), axis=0)
    words_WX = np.pad(bytes_BX, ((0, -len(bytes_BX) % 8), (0, 0))).T.copy().view(np.uint64).T
    order_X = np.lexsort(words_WX)  # sorting numbers takes a fifth of the time of sorting strings of bytes
    sorted_WX = words_WX[:, order_X]
    is_new_X = np.append(True, (sorted_WX[:, 1:] != sorted_WX[:, :-1]).any(axis=0))
    cell_X = np.empty_like(order_X)
    cell_X[order_X] = is_new_X.cumsum() - 1
    found = (order_X[is_new_X], cell_X, np.bincount(cell_X))
    first_C, group_X, size_C = (torch.from_numpy(part).to(bits_PX.device) for part in found)
    return first_C, group_X, size_C
