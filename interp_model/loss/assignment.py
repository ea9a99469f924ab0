"""Which category each filter is assigned to: the one whose images activate it most (Sec. 3.1).

`running` updates the assignment after every batch, as the released code does. With thirty categories and a batch of 32,
nearly all of 64 filters changed their category several times per epoch. `steady` averages over more images and requires
a margin before a filter changes its category (measured: docs/filter-loss.md).

Shape legend: N images   F filters   H = W map side   C categories.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DECAY = 0.9
"""Decay of the running mean per batch, as in the authors' released code."""

HORIZON = 100
"""Averaging window of the steady mean: number of a category's images, independent of the batch size."""

MARGIN = 0.1
"""Relative margin by which another category must activate a steady filter more before the filter changes to it."""


class FilterCategories(nn.Module):
    """c-hat_f = argmax_c mean_{I in I_c} sum_ij x_ij (Sec. 3.1), with a running mean over batches.

    In a single-category network every filter has the one category; labels are then 1 for it and 0 for negative images.
    Otherwise labels are category indices. All state is in buffers, so it is part of the state dict.

    Args:
        categories: C, number of categories.
        filters: F, number of filters.
    """

    activation_CF: Tensor
    """Running mean of each filter's summed activation on images of each category."""
    seen_C: Tensor
    """bool: whether an image of the category has been seen."""

    def __init__(self, categories: int, filters: int) -> None:
        super().__init__()
        self.register_buffer("activation_CF", torch.zeros(categories, filters))
        self.register_buffer("seen_C", torch.zeros(categories, dtype=torch.bool))

    @property
    def is_single(self) -> bool:
        """Whether the network has one category."""
        return len(self.seen_C) == 1

    @torch.no_grad()
    def update(self, x_NFHW: Tensor, label_N: Tensor) -> None:
        """Update the running means of the categories in a batch.

        Args:
            x_NFHW: maps after ReLU and before masking.
            label_N: labels of the images.
        """
        mean_CF, count_C = self._batch_means(x_NFHW, label_N)
        present_C = count_C > 0
        decay_C = torch.where(self.seen_C, DECAY, 0.0)
        updated_CF = mean_CF + decay_C[:, None] * (self.activation_CF - mean_CF)
        self.activation_CF.copy_(torch.where(present_C[:, None], updated_CF, self.activation_CF))
        self.seen_C |= present_C

    def _batch_means(self, x_NFHW: Tensor, label_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean_{I in I_c} sum_ij x_ij over a batch, 0 for absent categories, (C, F); and images per category."""
        index_N = label_N - 1 if self.is_single else label_N
        total_NF = x_NFHW.sum(dim=(2, 3)).to(self.activation_CF.dtype)
        member_CN = (torch.arange(len(self.seen_C), device=label_N.device)[:, None] == index_N).to(total_NF.dtype)
        count_C = member_CN.sum(dim=1)
        return (member_CN @ total_NF) / count_C.clamp_min(1)[:, None], count_C

    def category_F(self) -> Tensor:
        """Return the index of each filter's category: (F,), int64."""
        return self.activation_CF.argmax(dim=0)

    def is_target(self, label_N: Tensor) -> Tensor:
        """Return whether image n is of the category of filter f: (N, F), bool."""
        category_F = self.category_F() + 1 if self.is_single else self.category_F()
        return label_N[:, None] == category_F[None, :]


class SteadyCategories(FilterCategories):
    """Assignment by a mean over more images, changed only by a margin.

    Args:
        categories: C, number of categories.
        filters: F, number of filters.
    """

    images_C: Tensor
    """Number of images seen of each category."""
    chosen_F: Tensor
    """Index of each filter's category; -1 before the first batch."""

    def __init__(self, categories: int, filters: int) -> None:
        super().__init__(categories, filters)
        self.register_buffer("images_C", torch.zeros(categories))
        self.register_buffer("chosen_F", torch.full((filters,), -1))

    @torch.no_grad()
    def update(self, x_NFHW: Tensor, label_N: Tensor) -> None:
        """Update the means over the last `HORIZON` images of each category, then the assignment.

        Args:
            x_NFHW: maps after ReLU and before masking.
            label_N: labels of the images.
        """
        mean_CF, count_C = self._batch_means(x_NFHW, label_N)
        self.images_C += count_C
        self.seen_C |= count_C > 0
        # The plain mean of the first images, then an exponential moving average.
        weight_C = torch.maximum(count_C / self.images_C.clamp_min(1), 1 - (1 - 1 / HORIZON) ** count_C)
        self.activation_CF += weight_C[:, None] * (mean_CF - self.activation_CF)
        highest_F, best_F = self.activation_CF.max(dim=0)
        current_F = self.activation_CF.gather(0, self.chosen_F.clamp_min(0)[None]).squeeze(0)
        changes_F = (self.chosen_F < 0) | (highest_F > (1 + MARGIN) * current_F)
        self.chosen_F.copy_(torch.where(changes_F, best_F, self.chosen_F))

    def category_F(self) -> Tensor:
        """Return the index of each filter's category, 0 before the first batch: (F,), int64."""
        return self.chosen_F.clamp_min(0)
