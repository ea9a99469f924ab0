"""Random draws depend on the seed, the epoch and the purpose alone."""

from __future__ import annotations

from itertools import product
from typing import Any

import cv2
import pytest
import torch

from schemas.errors import SpecError
from tests.support.toy import run_epochs, toy_spec, toy_trainer, weights_of
from workers.training.determinism import (
    Purpose,
    generator,
    kernels,
    make_deterministic,
    seed_of,
    seed_torch,
    without_tf32,
)
from workers.training.trainer import Trainer

PURPOSES: tuple[Purpose, ...] = ("weights", "order", "mirror", "dropout")


@pytest.mark.parametrize("threads", [2, 1])
def test_a_job_takes_its_threads_and_no_more(threads: int) -> None:
    make_deterministic(threads)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (threads, threads)


def test_figures_compute_in_float32_and_leave_the_setting_of_their_process() -> None:
    def allowed() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = allowed()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with without_tf32():
            assert allowed() == (False, False)
        assert allowed() == (True, True)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_every_use_has_a_seed_of_its_own() -> None:
    seeds = [seed_of(seed, epoch, purpose) for seed, epoch, purpose in product((-1, 0, 1, 11), range(12), PURPOSES)]
    assert len(set(seeds)) == len(seeds)


def test_seeds_are_the_same_on_every_machine_and_in_every_process() -> None:
    assert seed_of(0, 1, "dropout") == 8390688206007455627


def test_what_was_drawn_before_does_not_matter() -> None:
    seed_torch(3, 2, "dropout")
    first = torch.rand(4)
    generator(3, 2, "order").random(100)
    torch.rand(100)
    seed_torch(3, 2, "dropout")
    assert torch.equal(torch.rand(4), first)


def settings() -> tuple[bool, bool]:
    """Whether torch forbids kernels that depend on timing, and whether cuDNN times its kernels."""
    return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark


def test_a_layer_without_a_deterministic_kernel_is_named_with_what_to_set() -> None:
    def step() -> None:
        raise RuntimeError(
            "reflection_pad2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'."
        )

    wanted = r"^reflection_pad2d_backward_cuda can .* Set `train.deterministic: false`"
    with pytest.raises(SpecError, match=wanted), kernels(deterministic=True):
        step()
    with pytest.raises(RuntimeError, match="shapes"), kernels(deterministic=True):
        raise RuntimeError("shapes differ")


def test_only_training_steps_of_a_job_that_allows_it_use_the_fastest_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    found, step = [], Trainer._step

    def noting(trainer: Trainer, *given: Any) -> Any:
        found.append(settings())
        return step(trainer, *given)

    monkeypatch.setattr(Trainer, "_step", noting)
    free, bound = (run_epochs(toy_trainer(toy_spec(train__deterministic=value)), 1) for value in (False, True))
    assert set(found[:3]) == {(False, True)}
    assert set(found[3:]) == {(True, False)} == {settings()}
    assert all(torch.equal(value, weights_of(bound)[name]) for name, value in weights_of(free).items())  # on a CPU


def test_a_step_that_fails_leaves_the_kernels_deterministic() -> None:
    make_deterministic(1)
    with pytest.raises(ValueError, match="no step"), kernels(deterministic=False):
        raise ValueError("no step")
    assert settings() == (True, False)


def test_jobs_keep_their_keys_unless_they_give_determinism_up() -> None:
    default = toy_spec()
    assert toy_spec(train__deterministic=True).key == default.key
    assert toy_spec(train__deterministic=False).key != default.key
