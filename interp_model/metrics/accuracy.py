"""Share of right answers, for logistic and softmax outputs (Table 7)."""

from __future__ import annotations

import torch
from torch import Tensor

from schemas.job import LossKind


def accuracy(logits_NO: Tensor, label_N: Tensor, loss: LossKind) -> float:
    """Share of right answers among N images.

    Args:
        logits_NO: one output per category; a single-category network has one output.
        label_N: category index, or with one output 1 for its category and 0 for other images.
        loss: `softmax` takes the largest output. `logistic` outputs are independent yes-or-no answers, yes above 0;
            with several of them the accuracy is the mean of theirs.
    """
    if loss == "softmax":
        return (logits_NO.argmax(dim=1) == label_N).double().mean().item()
    return ((logits_NO > 0) == binary_targets(label_N, logits_NO.shape[1])).double().mean().item()


def binary_targets(label_N: Tensor, n_outputs: int) -> Tensor:
    """What each independent logistic output should say: (N, O), bool."""
    if n_outputs == 1:
        return label_N[:, None] == 1
    return label_N[:, None] == torch.arange(n_outputs, device=label_N.device)
