"""Inputs of the trained layers are images or features of the frozen layers, flipped on request."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.toy import CPU, SIDE, toy_network, toy_spec, toy_split
from workers.training import inputs
from workers.training.inputs import EVALUATION_BATCH, Inputs

MEAN = np.random.default_rng(0).uniform(0, 80, (SIDE, SIDE, 3)).astype(np.float32)


def test_an_image_is_mirrored_left_to_right_before_the_mean_is_taken_off() -> None:
    split = toy_split(4)
    taken = Inputs(toy_network(toy_spec()), split, MEAN, CPU).take(np.array([2, 2]), np.array([False, True]))
    scale = float((split.take([2])[0, 5, 7, 1] - MEAN[5, 7, 1]) / taken[0, 1, 5, 7])
    mirrored = split.take([2])[0, :, ::-1].astype(np.float32) - MEAN
    np.testing.assert_allclose(scale * taken[1].permute(1, 2, 0).numpy(), mirrored, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limit", [0, 2**30])
def test_kept_features_are_those_of_the_frozen_layers(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(inputs, "MEMORY_LIMIT", limit)
    network = toy_network(toy_spec(train__freeze_below="conv4"))
    kept, plain = (Inputs(network, toy_split(10), MEAN, CPU) for _ in range(2))
    kept.keep_features(horizontal_flip=True, report=lambda _: None)
    index_B, mirrored_B = np.array([3, 9, 3, 0]), np.array([True, False, False, True])
    torch.testing.assert_close(kept.take(index_B, mirrored_B), plain.take(index_B, mirrored_B))
    assert (kept._kept is not None) == (limit > 0)


def test_nothing_is_kept_where_every_layer_is_trained() -> None:
    taken = Inputs(toy_network(toy_spec()), toy_split(4), MEAN, CPU)
    taken.keep_features(horizontal_flip=True, report=pytest.fail)
    assert taken.as_they_are(np.array([1])).shape == (1, 3, SIDE, SIDE)


def test_batches_cover_all_images_in_order() -> None:
    inputs = Inputs(toy_network(toy_spec()), toy_split(10), MEAN, CPU, memory_divisor=EVALUATION_BATCH // 4)
    assert [batch.tolist() for batch in inputs.batches()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_pictures_kept_on_the_device_are_those_of_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "has_room", lambda device, size: size == 10 * SIDE * SIDE * 3)
    network = toy_network(toy_spec())
    kept, plain = (Inputs(network, toy_split(10), MEAN, CPU) for _ in range(2))
    kept.keep_features(horizontal_flip=True, report=lambda _: None)
    index_B, mirrored_B = np.array([3, 9, 3, 0]), np.array([True, False, False, True])
    assert torch.equal(kept.take(index_B, mirrored_B), plain.take(index_B, mirrored_B))
    assert kept._pictures_NSS3 is not None
