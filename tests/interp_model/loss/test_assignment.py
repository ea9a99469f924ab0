"""A filter stands for the category whose images activate it most."""

from __future__ import annotations

import pytest
import torch

from interp_model.loss.assignment import HORIZON, FilterCategories, SteadyCategories


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


def steady(totals: list[list[float]], labels: list[int], into: SteadyCategories) -> list[int]:
    into.update(maps(totals), torch.tensor(labels))
    return into.category_F().tolist()


def test_a_steady_filter_takes_the_category_that_activates_it_most() -> None:
    assert steady([[1, 4], [3, 4], [3, 3], [1, 5]], [0, 0, 1, 2], SteadyCategories(categories=3, filters=2)) == [1, 2]


def test_a_steady_mean_is_of_all_images_alike_however_they_come_in_batches() -> None:
    whole, parts = (SteadyCategories(categories=2, filters=1) for _ in range(2))
    steady([[2], [4], [9], [5]], [0, 0, 0, 1], whole)
    for total in (2.0, 4.0, 9.0):
        steady([[total]], [0], parts)
    steady([[5]], [1], parts)
    torch.testing.assert_close(whole.activation_CF, torch.tensor([[5.0], [5.0]]))
    torch.testing.assert_close(parts.activation_CF, whole.activation_CF)


def test_a_steady_mean_forgets_what_is_long_past() -> None:
    categories = SteadyCategories(categories=1, filters=1)
    for total in (0.0, 1.0):
        for _ in range(5 * HORIZON):
            steady([[total]], [1], categories)
    assert categories.activation_CF.item() == pytest.approx(1 - (1 - 1 / HORIZON) ** (5 * HORIZON), rel=1e-4)


def test_a_steady_filter_changes_for_a_clearly_stronger_category_only() -> None:
    categories = SteadyCategories(categories=2, filters=1)
    assert steady([[10], [9]], [0, 1], categories) == [0]
    assert steady([[12.9]], [1], categories) == [0]  # the mean is 10.95: no tenth more than 10
    assert steady([[11.2]], [1], categories) == [1]  # and now 11.03


def test_chance_does_not_move_a_steady_filter_where_it_moves_a_running_one() -> None:
    """Thirty categories, one image of each in a batch, nearly equal means and a spread as large as a fifth of them."""
    generator = torch.Generator().manual_seed(0)
    level_CF = 1 + 0.05 * torch.rand(30, 16, generator=generator)
    kinds = FilterCategories(30, 16), SteadyCategories(30, 16)
    changes = [0, 0]
    for batch in range(400):
        totals = level_CF * (1 + 0.2 * torch.randn(30, 16, generator=generator))
        for kind, categories in enumerate(kinds):
            before = categories.category_F().clone()
            categories.update((totals / 4)[:, :, None, None].expand(-1, -1, 2, 2), torch.arange(30))
            changes[kind] += int((categories.category_F() != before).sum()) if batch >= 200 else 0
    assert changes[1] <= 2
    assert changes[0] > 100


def test_the_steady_assignment_travels_with_a_checkpoint() -> None:
    before, after = (SteadyCategories(categories=2, filters=2) for _ in range(2))
    steady([[1, 5], [2, 3]], [0, 1], before)
    after.load_state_dict(before.state_dict())
    assert steady([[1, 9], [9, 3]], [0, 1], after) == steady([[1, 9], [9, 3]], [0, 1], before)
    assert torch.equal(after.activation_CF, before.activation_CF)


def test_a_single_category_network_has_nothing_to_settle() -> None:
    categories = SteadyCategories(categories=1, filters=3)
    categories.update(maps([[0, 0, 0], [9, 9, 9]]), torch.tensor([1, 0]))
    assert categories.is_target(torch.tensor([1, 0])).tolist() == [[True] * 3, [False] * 3]
