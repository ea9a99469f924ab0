"""Which device a job computes on, how many threads it uses, and where every random number comes from."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import cv2
import numpy as np
import torch

from schemas.errors import SpecError

Purpose = Literal["weights", "order", "mirror", "dropout"]

CUBLAS_WORKSPACE = ":4096:8"
"""Workspace of fixed size, without which cuBLAS is not deterministic."""

_HAS_NONE = "does not have a deterministic implementation"
"""What torch says of a function, after its name, that it does not run while kernels have to be deterministic."""
_GENERATORS = threading.RLock()
"""Held while a job draws from torch's global generators, which the jobs of a process share."""


def choose_device() -> torch.device:
    """Return the GPU that Ray or CUDA_VISIBLE_DEVICES left visible, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_deterministic(threads: int) -> None:
    """Pin the thread count and forbid algorithms whose result depends on timing.

    Call it in the thread that computes: OpenMP keeps its thread count per calling thread.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS_WORKSPACE
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)  # otherwise drawing takes all cores in every worker
    torch.use_deterministic_algorithms(True)
    # Filling fresh tensors with NaN only helps to find reads of uninitialised memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    _allow_tf32(cudnn=False, matmul=False)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute in float32 as a job does, in a process that is not a worker and may allow a GPU fewer digits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    _allow_tf32(cudnn=False, matmul=False)
    try:
        yield
    finally:
        _allow_tf32(cudnn=before[0], matmul=before[1])


def _allow_tf32(*, cudnn: bool, matmul: bool) -> None:
    torch.backends.cudnn.allow_tf32 = cudnn
    torch.backends.cuda.matmul.allow_tf32 = matmul


@contextmanager
def kernels(*, deterministic: bool) -> Iterator[None]:
    """Compute as `make_deterministic` says or, if not deterministic, with the kernels that are fastest here.

    Raises:
        SpecError: a layer of the backbone has no deterministic kernel on this device.
    """
    if deterministic:
        try:
            yield
        except RuntimeError as error:
            if _HAS_NONE not in str(error):
                raise
            raise SpecError(
                f"{str(error).partition(_HAS_NONE)[0]}can be trained on this device only with kernels whose result "
                "depends on timing. Set `train.deterministic: false`, or freeze the layers that need it."
            ) from error
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def seed_of(seed: int, epoch: int, purpose: Purpose) -> int:
    """Derive a 63-bit seed from the spec's seed, the epoch and the purpose alone.

    Generators live for one epoch only, so a job resumed between two epochs draws the same numbers.
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_torch(seed: int, epoch: int, purpose: Purpose) -> None:
    """Seed torch's global generators on every device."""
    torch.manual_seed(seed_of(seed, epoch, purpose))


def generator(seed: int, epoch: int, purpose: Purpose) -> np.random.Generator:
    """Return a NumPy generator for one purpose; draws for one purpose do not shift those for another."""
    return np.random.default_rng(seed_of(seed, epoch, purpose))


def random_states() -> dict[str, Any]:
    """Return the states of torch's global generators, on the CPU and on every GPU."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "gpus": gpus}


def set_random_states(states: Mapping[str, Any]) -> None:
    """Restore what `random_states` returned; GPU states only if the number of GPUs is the same."""
    torch.set_rng_state(states["cpu"])
    if len(states["gpus"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["gpus"])


@contextmanager
def seeded(seed: int, epoch: int, purpose: Purpose) -> Iterator[None]:
    """Seed torch's global generators, and keep the other jobs of this process away from them within the context."""
    with _GENERATORS:
        seed_torch(seed, epoch, purpose)
        yield


class OwnRandomness:
    """The states of torch's global generators as one job has them, whatever other jobs of the process draw."""

    def __init__(self, states: Mapping[str, Any]) -> None:
        """Begin with states that `random_states` returned."""
        self.states = dict(states)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Give torch's generators the job's states within the context, and note those that they have after it."""
        with _GENERATORS:
            set_random_states(self.states)
            yield
            self.states = random_states()
