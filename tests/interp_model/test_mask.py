"""An interpretable layer's forward pass keeps the neighbourhood of each map's peak."""

from __future__ import annotations

import torch

from interp_model.mask import apply_mask, peak_index
from interp_model.templates import make_templates, mask_bank


def relu_maps(n: int, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 5, n, n, generator=torch.Generator().manual_seed(seed))


def test_the_peak_is_found_row_by_row() -> None:
    x_NFHW = torch.zeros(1, 2, 3, 3)
    x_NFHW[0, 0, 1, 2] = 1
    x_NFHW[0, 1, 2, 0] = 1
    assert peak_index(x_NFHW).tolist() == [[5, 6]]


def test_the_first_of_equal_peaks_wins() -> None:
    x_NFHW = torch.zeros(1, 1, 4, 4)
    x_NFHW[0, 0, 1, 3] = x_NFHW[0, 0, 2, 0] = 2.0
    assert peak_index(x_NFHW).tolist() == [[7]]


def test_a_silent_map_stays_silent() -> None:
    x_NFHW = torch.zeros(2, 1, 4, 4)
    assert apply_mask(x_NFHW, mask_bank(4), peak_index(x_NFHW)).count_nonzero() == 0


def test_one_map_is_masked_as_computed_by_hand() -> None:
    # n = 4: weight 1 at the peak, 0 from one step away on.
    x_NFHW = torch.full((1, 1, 4, 4), 0.5)
    x_NFHW[0, 0, 2, 1] = 3.0
    expected_HW = torch.zeros(4, 4)
    expected_HW[2, 1] = 3.0
    torch.testing.assert_close(apply_mask(x_NFHW, mask_bank(4), peak_index(x_NFHW))[0, 0], expected_HW)


def test_masking_equals_the_papers_formula_at_the_scale_of_the_activations() -> None:
    n = 7
    x_NFHW = relu_maps(n)
    peak_NF = peak_index(x_NFHW)
    by_paper = (x_NFHW * make_templates(n)[peak_NF] * 2 * n**2).clamp_min(0)
    torch.testing.assert_close(apply_mask(x_NFHW, mask_bank(n), peak_NF), by_paper)


def test_a_map_that_peaks_in_the_last_corner_survives() -> None:
    x_NFHW = torch.zeros(1, 1, 5, 5)
    x_NFHW[0, 0, 4, 4] = 1.0
    torch.testing.assert_close(apply_mask(x_NFHW, mask_bank(5), peak_index(x_NFHW)), x_NFHW)


def test_the_gradient_is_the_mask_itself() -> None:
    x_NFHW = relu_maps(6).requires_grad_()
    peak_NF = peak_index(x_NFHW.detach())
    apply_mask(x_NFHW, mask_bank(6), peak_NF).sum().backward()
    assert x_NFHW.grad is not None
    torch.testing.assert_close(x_NFHW.grad, mask_bank(6)[peak_NF])


def test_each_image_and_filter_is_masked_on_its_own() -> None:
    x_NFHW = relu_maps(7)
    whole = apply_mask(x_NFHW, mask_bank(7), peak_index(x_NFHW))
    one = x_NFHW[1:2, 3:4]
    torch.testing.assert_close(apply_mask(one, mask_bank(7), peak_index(one)), whole[1:2, 3:4])
