"""Which category each filter stands for: the one whose images activate it most (Sec. 3.1).

`running` follows every batch, as the released code does. With thirty categories a batch of 32 has one image of each,
and of 64 filters nearly all changed their category several times an epoch; `steady` remembers more images and changes
for a clear reason only (measured: docs/filter-loss.md).

Shape legend: N images   F filters   H = W map side   C categories.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KEPT = 0.9
"""Share of a category's running mean that one more batch leaves in place, as in the authors' released code."""

HORIZON = 100
"""Images of a category that the steady mean reaches back over, whatever the batch size."""

MARGIN = 0.1
"""By which share another category has to activate a filter more than its own before a steady filter changes."""


class FilterCategories(nn.Module):
    """c-hat_f = argmax_c mean_{I in I_c} sum_ij x_ij, the mean running over batches while the network changes.

    A single-category network gives every filter its one category: labels are then 1 for it and 0 for other images.
    Otherwise labels are category indices.
    """

    activation_CF: Tensor
    seen_C: Tensor

    def __init__(self, categories: int, filters: int) -> None:
        super().__init__()
        self.register_buffer("activation_CF", torch.zeros(categories, filters))
        self.register_buffer("seen_C", torch.zeros(categories, dtype=torch.bool))

    @property
    def is_single(self) -> bool:
        return len(self.seen_C) == 1

    @torch.no_grad()
    def update(self, x_NFHW: Tensor, label_N: Tensor) -> None:
        """Let a batch move the running mean of each category that it holds images of."""
        mean_CF, count_C = self._batch_means(x_NFHW, label_N)
        present_C = count_C > 0
        kept_C = torch.where(self.seen_C, KEPT, 0.0)
        moved_CF = mean_CF + kept_C[:, None] * (self.activation_CF - mean_CF)
        self.activation_CF.copy_(torch.where(present_C[:, None], moved_CF, self.activation_CF))
        self.seen_C |= present_C

    def _batch_means(self, x_NFHW: Tensor, label_N: Tensor) -> tuple[Tensor, Tensor]:
        """mean_{I in I_c} sum_ij x_ij over a batch, 0 where it has no image of the category, and how many it has."""
        index_N = label_N - 1 if self.is_single else label_N
        total_NF = x_NFHW.sum(dim=(2, 3)).to(self.activation_CF.dtype)
        member_CN = (torch.arange(len(self.seen_C), device=label_N.device)[:, None] == index_N).to(total_NF.dtype)
        count_C = member_CN.sum(dim=1)
        return (member_CN @ total_NF) / count_C.clamp_min(1)[:, None], count_C

    def category_F(self) -> Tensor:
        """Index of each filter's category."""
        return self.activation_CF.argmax(dim=0)

    def is_target(self, label_N: Tensor) -> Tensor:
        """Whether image n shows the category of filter f: (N, F), bool."""
        wanted_F = self.category_F() + 1 if self.is_single else self.category_F()
        return label_N[:, None] == wanted_F[None, :]


class SteadyCategories(FilterCategories):
    """The same mean over more images, and a filter keeps its category until another's activate it clearly more."""

    images_C: Tensor
    chosen_F: Tensor

    def __init__(self, categories: int, filters: int) -> None:
        super().__init__(categories, filters)
        self.register_buffer("images_C", torch.zeros(categories))
        self.register_buffer("chosen_F", torch.full((filters,), -1))

    @torch.no_grad()
    def update(self, x_NFHW: Tensor, label_N: Tensor) -> None:
        """Let a batch's images move the means, each by its share of the `HORIZON` last ones, then the filters."""
        mean_CF, count_C = self._batch_means(x_NFHW, label_N)
        self.images_C += count_C
        self.seen_C |= count_C > 0
        # The plain mean of all images at first, then one that forgets.
        fresh_C = torch.maximum(count_C / self.images_C.clamp_min(1), 1 - (1 - 1 / HORIZON) ** count_C)
        self.activation_CF += fresh_C[:, None] * (mean_CF - self.activation_CF)
        most_F, best_F = self.activation_CF.max(dim=0)
        own_F = self.activation_CF.gather(0, self.chosen_F.clamp_min(0)[None]).squeeze(0)
        leaves_F = (self.chosen_F < 0) | (most_F > (1 + MARGIN) * own_F)
        self.chosen_F.copy_(torch.where(leaves_F, best_F, self.chosen_F))

    def category_F(self) -> Tensor:
        """Index of each filter's category; the first one's before any image was seen."""
        return self.chosen_F.clamp_min(0)
