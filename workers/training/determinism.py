"""Which device a job computes on, how many threads it takes, and where every random number comes from."""

from __future__ import annotations

import hashlib
import os
from typing import Literal

import cv2
import numpy as np
import torch

Purpose = Literal["weights", "order", "mirror", "dropout"]

CUBLAS_WORKSPACE = ":4096:8"
"""cuBLAS is deterministic only with a workspace of fixed size."""


def choose_device() -> torch.device:
    """The GPU that Ray (or CUDA_VISIBLE_DEVICES) left visible, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_deterministic(threads: int) -> None:
    """Pin the thread count and refuse algorithms whose result depends on timing.

    To be called in the thread that computes: OpenMP keeps its thread count per calling thread.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS_WORKSPACE
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)  # else every worker's drawing takes all cores
    torch.use_deterministic_algorithms(True)
    # Filling every fresh tensor with NaN only helps to find reads of memory that nothing wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def seed_of(seed: int, epoch: int, purpose: Purpose) -> int:
    """63 bits that depend on nothing but the spec's seed, the epoch and the purpose.

    No generator lives longer than an epoch, so a job that resumes between two epochs draws what it would have drawn.
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_torch(seed: int, epoch: int, purpose: Purpose) -> None:
    """Restart torch's global generators, on every device."""
    torch.manual_seed(seed_of(seed, epoch, purpose))


def generator(seed: int, epoch: int, purpose: Purpose) -> np.random.Generator:
    """A generator of its own for each use, so that a further use moves no other."""
    return np.random.default_rng(seed_of(seed, epoch, purpose))
