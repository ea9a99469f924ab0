"""A filter stands for the category whose images activate it most."""

from __future__ import annotations

import torch

from interp_model.assignment import FilterCategories


def maps(total_NF: list[list[float]]) -> torch.Tensor:
    """2-by-2 maps whose activations sum to the given totals."""
    return (torch.tensor(total_NF) / 4)[:, :, None, None].expand(-1, -1, 2, 2)


def test_a_single_category_network_gives_every_filter_its_category() -> None:
    categories = FilterCategories(categories=1, filters=3)
    categories.update(maps([[0, 0, 0], [9, 9, 9]]), torch.tensor([1, 0]))
    assert categories.is_target(torch.tensor([1, 0, 1])).tolist() == [[True] * 3, [False] * 3, [True] * 3]


def test_each_filter_takes_the_category_that_activates_it_most_on_average() -> None:
    categories = FilterCategories(categories=3, filters=2)
    # Filter 0: category means 2, 3, 1. Filter 1: 4, 3, 5, although category 0 has the larger sum.
    categories.update(maps([[1, 4], [3, 4], [3, 3], [1, 5]]), torch.tensor([0, 0, 1, 2]))
    assert categories.category_F().tolist() == [1, 2]
    assert categories.is_target(torch.tensor([0, 1, 2])).tolist() == [[False, False], [True, False], [False, True]]


def test_the_mean_runs_over_batches() -> None:
    categories = FilterCategories(categories=1, filters=1)
    for total in (10.0, 20.0):
        categories.update(maps([[total]]), torch.tensor([1]))
    torch.testing.assert_close(categories.activation_CF, torch.tensor([[11.0]]))  # 0.9 * 10 + 0.1 * 20


def test_a_category_absent_from_a_batch_keeps_its_mean() -> None:
    categories = FilterCategories(categories=2, filters=1)
    categories.update(maps([[8.0]]), torch.tensor([1]))
    categories.update(maps([[2.0]]), torch.tensor([0]))
    torch.testing.assert_close(categories.activation_CF, torch.tensor([[2.0], [8.0]]))


def test_negatives_of_a_single_category_do_not_move_its_mean() -> None:
    categories = FilterCategories(categories=1, filters=1)
    categories.update(maps([[4.0], [100.0]]), torch.tensor([1, 0]))
    torch.testing.assert_close(categories.activation_CF, torch.tensor([[4.0]]))


def test_the_assignment_travels_with_a_checkpoint() -> None:
    before, after = (FilterCategories(categories=2, filters=2) for _ in range(2))
    before.update(maps([[1, 5], [2, 3]]), torch.tensor([0, 1]))
    after.load_state_dict(before.state_dict())
    assert after.category_F().tolist() == before.category_F().tolist() == [1, 0]
