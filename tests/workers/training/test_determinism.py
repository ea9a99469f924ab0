"""Random draws depend on the seed, the epoch and the purpose alone."""

from __future__ import annotations

from itertools import product

import cv2
import pytest
import torch

from workers.training.determinism import Purpose, generator, make_deterministic, seed_of, seed_torch

PURPOSES: tuple[Purpose, ...] = ("weights", "order", "mirror", "dropout")


@pytest.mark.parametrize("threads", [2, 1])
def test_a_job_takes_its_threads_and_no_more(threads: int) -> None:
    make_deterministic(threads)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (threads, threads)


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
