"""Classification accuracy for logistic and softmax outputs (Table 7)."""

from __future__ import annotations

import torch
from torch import Tensor

from schemas.job import LossKind


def accuracy(logits_NO: Tensor, label_N: Tensor, loss: LossKind) -> float:
    """Return the classification accuracy over N images, from 0 to 1 (Table 7). Arguments: see `accuracy_on_device`."""
    return accuracy_on_device(logits_NO, label_N, loss).item()


def accuracy_on_device(logits_NO: Tensor, label_N: Tensor, loss: LossKind) -> Tensor:
    """Return `accuracy` as a float64 scalar on the device, without waiting for it.

    Args:
        logits_NO: one output per category; a single-category network has one output.
        label_N: category index; with one output, 1 for its category and 0 for negative images.
        loss: `softmax` predicts the largest output. `logistic` outputs are independent binary predictions, positive
            above 0; with several outputs their accuracies are averaged (footnote 4).
    """
    if loss == "softmax":
        return (logits_NO.argmax(dim=1) == label_N).double().mean()
    return ((logits_NO > 0) == binary_targets(label_N, logits_NO.shape[1])).double().mean()


def chance_level(label_N: Tensor, n_outputs: int, loss: LossKind) -> float:
    """Return the accuracy of the best constant answer: the share of the most frequent label, from 0 to 1.

    Args:
        label_N: as in `accuracy_on_device`.
        n_outputs: number of outputs.
        loss: as in `accuracy_on_device`; for several logistic outputs the answer of each output is constant.
    """
    if loss == "softmax":
        return (torch.bincount(label_N, minlength=n_outputs).max() / len(label_N)).item()
    share_O = binary_targets(label_N, n_outputs).double().mean(dim=0)
    return torch.maximum(share_O, 1 - share_O).mean().item()


def binary_targets(label_N: Tensor, n_outputs: int) -> Tensor:
    """Return the binary target of each logistic output: (N, O), bool.

    Args:
        label_N: as in `accuracy_on_device`.
        n_outputs: number of outputs.
    """
    if n_outputs == 1:
        return label_N[:, None] == 1
    return label_N[:, None] == torch.arange(n_outputs, device=label_N.device)
