"""Accuracy, counted by hand."""

from __future__ import annotations

import pytest
import torch

from interp_model.metrics.accuracy import accuracy, chance_level


def test_one_logistic_output_says_yes_above_zero() -> None:
    logits = torch.tensor([[2.0], [-1.0], [0.5], [-3.0], [0.0]])
    assert accuracy(logits, torch.tensor([1, 1, 0, 0, 0]), "logistic") == pytest.approx(3 / 5)


def test_several_logistic_outputs_are_independent_answers_that_are_averaged() -> None:
    logits = torch.tensor([[5.0, 1.0, -1.0], [-1.0, -1.0, -1.0]])
    # image 0, category 0: right, wrong, right; image 1, category 2: right, right, wrong
    assert accuracy(logits, torch.tensor([0, 2]), "logistic") == pytest.approx(4 / 6)


def test_softmax_takes_the_largest_output_whatever_its_sign() -> None:
    logits = torch.tensor([[-5.0, -1.0], [3.0, 2.0], [1.0, 4.0]])
    assert accuracy(logits, torch.tensor([1, 1, 1]), "softmax") == pytest.approx(2 / 3)


def test_an_image_of_no_category_wants_no_from_every_logistic_output() -> None:
    assert accuracy(torch.tensor([[-1.0, 2.0]]), torch.tensor([-1]), "logistic") == 0.5


def test_chance_is_the_share_of_the_most_frequent_label() -> None:
    assert chance_level(torch.tensor([1, 1, 1, 0]), 1, "logistic") == 0.75
    assert chance_level(torch.tensor([0, 0, 0, 1]), 1, "logistic") == 0.75
    assert chance_level(torch.tensor([0, 2, 2, 1]), 3, "softmax") == 0.5
    # of three outputs: no, in 3/4, 3/4 and 1/2 of the images
    assert chance_level(torch.tensor([0, 2, 2, 1]), 3, "logistic") == pytest.approx(2 / 3)
