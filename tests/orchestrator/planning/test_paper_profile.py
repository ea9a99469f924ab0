"""Learning rates of every layer under the `paper` profile, compared with those of the released code, listed here."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from interp_model.network import build_network
from interp_model.parameter_groups import parameter_groups
from schemas.job import BackboneName, JobSpec, TrainSpec
from tests.support.doubles import Plan
from workers.training.schedule import learning_rate_at


class Schedule(NamedTuple):
    first: float
    last: float
    """Learning rate of weights in the first epoch, and at the end of the decay."""
    decay: int
    epochs: int
    batch: int


SINGLE: dict[str, Schedule] = {
    # 1e-4 -> 1e-5 over 10 of 50 epochs, times 30, 30, 10 and 1.
    "alexnet": Schedule(3e-3, 3e-4, 10, 50, 512),
    "vgg_m": Schedule(3e-3, 3e-4, 10, 50, 196),
    "vgg_s": Schedule(1e-3, 1e-4, 10, 50, 128),
    "vgg16": Schedule(1e-4, 1e-5, 10, 50, 32),
}
SEVERAL: dict[tuple[str, str, str], Schedule] = {
    # 1e-4 -> 1e-5 over 80 epochs, times the same and times the labels; a fifth for softmax, a tenth beyond ten labels.
    ("voc-part-multi", "alexnet", "logistic"): Schedule(1.8e-2, 1.8e-3, 80, 80, 512),
    ("voc-part-multi", "vgg_m", "logistic"): Schedule(1.8e-2, 1.8e-3, 80, 80, 196),
    ("voc-part-multi", "vgg_s", "logistic"): Schedule(6e-3, 6e-4, 80, 80, 128),
    ("voc-part-multi", "vgg16", "logistic"): Schedule(6e-4, 6e-5, 80, 80, 32),
    ("voc-part-multi", "alexnet", "softmax"): Schedule(3.6e-3, 3.6e-4, 80, 80, 512),
    ("voc-part-multi", "vgg_m", "softmax"): Schedule(3.6e-3, 3.6e-4, 80, 80, 196),
    ("voc-part-multi", "vgg_s", "softmax"): Schedule(1.2e-3, 1.2e-4, 80, 80, 128),
    ("voc-part-multi", "vgg16", "softmax"): Schedule(1.2e-4, 1.2e-5, 80, 80, 32),
    ("ilsvrc-multi", "vgg_m", "logistic"): Schedule(9e-3, 9e-4, 80, 80, 196),
    ("ilsvrc-multi", "vgg_s", "logistic"): Schedule(3e-3, 3e-4, 80, 80, 128),
    ("ilsvrc-multi", "vgg16", "logistic"): Schedule(3e-4, 3e-5, 80, 80, 32),
}
LOWER = {
    "alexnet": ("conv1", "conv2", "conv3", "conv4"),
    "vgg_m": ("conv1", "conv2", "conv3", "conv4"),
    "vgg_s": ("conv1", "conv2", "conv3", "conv4"),
    "vgg16": (
        "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
        "conv5_1", "conv5_2",
    ),
}  # fmt: skip
TOP = {"alexnet": "conv5", "vgg_m": "conv5", "vgg_s": "conv5", "vgg16": "conv5_3"}
DECAY = 5e-4


def by_hand(backbone: str) -> dict[str, tuple[float, float, float, float]]:
    """Rate multipliers of weights and biases, then weight decay of both, for each layer of the released code."""
    layers = dict.fromkeys(LOWER[backbone], (1.0, 1.0, DECAY, 0.0))
    layers[TOP[backbone]] = (1.0, 5.0, DECAY, 0.0)
    return layers | dict.fromkeys(("conv6", "fc6", "fc7", "fc8"), (1.0, 2.0, DECAY, 0.0))


def effective(job: JobSpec) -> dict[str, tuple[float, float, float, float]]:
    """The same values in the optimiser's parameter groups."""
    small = job.model.model_copy(update={"width": 0.03, "fc_width": 8, "input_size": 96})
    network = build_network(small, job.n_outputs)
    groups = parameter_groups(network, job.train)
    of = {id(p): (group["lr_multiplier"], group["weight_decay"]) for group in groups for p in group["params"]}
    found = {}
    for name, block in network.blocks.items():
        both = {p.ndim > 1: of[id(p)] for p in block.parameters()}
        if both:
            found[name] = (both[True][0], both[False][0], both[True][1], both[False][1])
    return found


def schedule_of(job: JobSpec) -> Schedule:
    train: TrainSpec = job.train
    rates = [learning_rate_at(train, epoch) for epoch in range(1, train.epochs + 1)]
    decay = next(epoch for epoch, rate in enumerate(rates, start=1) if rate <= rates[-1] * (1 + 1e-9))
    return Schedule(rates[0], rates[-1], decay, train.epochs, train.batch_size)


@pytest.mark.parametrize("backbone", SINGLE)
def test_every_layer_of_a_single_category_network_learns_at_the_released_codes_rate(
    plan_grid: Plan, backbone: BackboneName
) -> None:
    sweep = plan_grid("voc-part", profile="paper", backbones=(backbone,), categories=("cat",))
    jobs = [job for job in sweep.jobs if job.key not in sweep.upstream_keys]
    for job in jobs:
        assert schedule_of(job) == pytest.approx(SINGLE[backbone])
        layers = by_hand(backbone)
        if job.model.variant == "ordinary":
            del layers["conv6"]
        assert effective(job) == layers
        assert (job.train.momentum, job.model.dropout, job.train.max_grad_norm) == (0.9, 0.8, None)
        assert job.data.negatives_per_positive == pytest.approx(1 / 3)
        assert job.data.negatives == "folder"
        assert (job.model.width, job.model.input_size, job.model.fc_width) == (1, 224, 4096)


@pytest.mark.parametrize("grid", ["voc-part-multi", "ilsvrc-multi"])
def test_networks_of_several_categories_learn_at_the_released_codes_rates(plan_grid: Plan, grid: str) -> None:
    sweep = plan_grid(grid, profile="paper")
    jobs = [job for job in sweep.jobs if job.key not in sweep.upstream_keys]
    found = {(grid, job.model.backbone, job.loss): schedule_of(job) for job in jobs}
    for network, expected in SEVERAL.items():
        if network[0] == grid:
            assert found[network] == pytest.approx(expected), network
    assert {job.data.negatives for job in jobs} == {"other_categories"}
    assert effective(jobs[-1]) == by_hand(jobs[-1].model.backbone)


def test_a_users_own_rate_is_not_multiplied(plan_grid: Plan) -> None:
    sweep = plan_grid("voc-part-multi", profile="paper", sets={"train.learning_rate": 0.5, "train.epochs": 3})
    jobs = [job for job in sweep.jobs if job.key not in sweep.upstream_keys]
    assert {(job.train.learning_rate, job.train.epochs) for job in jobs} == {(0.5, 3)}


def test_some_of_the_categories_learn_at_the_rate_of_so_many(plan_grid: Plan) -> None:
    sweep = plan_grid(
        "voc-part-multi", profile="paper", backbones=("vgg16",), categories=("cat", "cow", "dog", "sheep")
    )
    rates = {job.loss: job.train.learning_rate for job in sweep.jobs}
    assert rates == pytest.approx({"logistic": 4e-4, "softmax": 4e-4 / 5})
