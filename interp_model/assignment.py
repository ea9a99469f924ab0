"""Which category each filter stands for: the one whose images activate it most (Sec. 3.1).

Shape legend: N images   F filters   H = W map side   C categories.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KEPT = 0.9
"""Share of a category's running mean that one more batch leaves in place, as in the authors' released code."""


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
        index_N = label_N - 1 if self.is_single else label_N
        total_NF = x_NFHW.sum(dim=(2, 3)).to(self.activation_CF.dtype)
        member_CN = (torch.arange(len(self.seen_C), device=label_N.device)[:, None] == index_N).to(total_NF.dtype)
        count_C = member_CN.sum(dim=1)
        mean_CF = (member_CN @ total_NF) / count_C.clamp_min(1)[:, None]
        present_C = count_C > 0
        kept_C = torch.where(self.seen_C, KEPT, 0.0)
        moved_CF = mean_CF + kept_C[:, None] * (self.activation_CF - mean_CF)
        self.activation_CF.copy_(torch.where(present_C[:, None], moved_CF, self.activation_CF))
        self.seen_C |= present_C

    def category_F(self) -> Tensor:
        """Index of each filter's category."""
        return self.activation_CF.argmax(dim=0)

    def is_target(self, label_N: Tensor) -> Tensor:
        """Whether image n shows the category of filter f: (N, F), bool."""
        wanted_F = self.category_F() + 1 if self.is_single else self.category_F()
        return label_N[:, None] == wanted_F[None, :]
