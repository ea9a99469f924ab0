"""Templates, prior and masks have the values that Sec. 3 of the paper gives them."""

from __future__ import annotations

import pytest
import torch

from interp_model.templates import make_templates, mask_bank, template_prior


def test_a_small_template_matches_the_hand_computed_one() -> None:
    # n = 4, tau = 1/32, beta/n = 1: each step away from mu costs one tau until -tau is reached.
    expected_HW = torch.tensor([[0, -1, -1, -1], [1, 0, -1, -1], [0, -1, -1, -1], [-1, -1, -1, -1]]) / 32
    torch.testing.assert_close(make_templates(4)[4], expected_HW)


@pytest.mark.parametrize("n", [1, 2, 7, 13])
def test_every_positive_template_peaks_where_its_index_says(n: int) -> None:
    t_THW = make_templates(n)
    assert t_THW.shape == (n * n + 1, n, n)
    peak_P = t_THW[:-1].flatten(1).argmax(dim=1)
    assert peak_P.tolist() == list(range(n * n))
    torch.testing.assert_close(t_THW[:-1].flatten(1).amax(dim=1), torch.full((n * n,), 0.5 / n**2))


def test_the_last_template_is_negative_everywhere() -> None:
    torch.testing.assert_close(make_templates(5)[-1], torch.full((5, 5), -0.02))


def test_no_template_goes_below_the_negative_one() -> None:
    assert make_templates(9).min().item() == pytest.approx(-0.5 / 81)


def test_beta_sets_how_fast_a_template_falls() -> None:
    step_by_beta = {
        beta: (make_templates(8, beta=beta)[0, 0, 0] - make_templates(8, beta=beta)[0, 0, 1]).item() * 2 * 64
        for beta in (1.0, 2.0)
    }
    assert step_by_beta == pytest.approx({1.0: 1 / 8, 2.0: 2 / 8})


def test_the_prior_gives_alpha_to_the_positive_templates_together() -> None:
    prior_T = template_prior(6)
    assert prior_T.sum().item() == pytest.approx(1)
    assert prior_T[:-1].sum().item() == pytest.approx(36 / 37)


def test_masks_keep_the_peak_and_never_turn_an_activation_negative() -> None:
    bank_PHW = mask_bank(7)
    assert bank_PHW.flatten(1).amax(dim=1).tolist() == [1.0] * 49
    assert bank_PHW.min().item() == 0


def test_a_mask_is_its_template_at_the_scale_of_the_activations() -> None:
    n = 7
    torch.testing.assert_close(mask_bank(n), (make_templates(n)[:-1] * 2 * n**2).clamp_min(0))
