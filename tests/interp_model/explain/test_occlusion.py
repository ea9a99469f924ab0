"""Receptive fields by occlusion: on filters whose place is known, they are found there and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp_model.explain.occlusion import (
    REGION_THRESHOLD,
    Occluder,
    aligned_field,
    image_field,
    occluder_for,
    occlusion_drop,
    sensitivity_map,
)

SIDE, PATCH = 16, 4
OCCLUDER = Occluder(side=PATCH, stride=4, sigma=1.0)


def maps(images_B3SS: Tensor) -> Tensor:
    """Filter 0 sums the red of a square that it alone sees, filter 1 the green of everything, per quarter."""
    one_place = images_B3SS[:, 0, 4:8, 8:12].sum(dim=(1, 2))
    x_B2HW = torch.zeros(len(images_B3SS), 2, 2, 2)
    x_B2HW[:, 0, 0, 1] = one_place
    x_B2HW[:, 1] = torch.nn.functional.avg_pool2d(images_B3SS[:, 1], 8) * 64
    return x_B2HW


def test_the_occluder_reaches_every_pixel_of_the_border() -> None:
    assert Occluder(4, 3, 1.0).places(12) == [0, 3, 6, 8]
    assert occluder_for(224) == Occluder(33, 9, 30.0)


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_a_filter_loses_what_is_hidden_from_it(batch: int) -> None:
    drop_FGG = occlusion_drop(maps, torch.ones(3, SIDE, SIDE), OCCLUDER, batch=batch)
    expected_GG = torch.zeros(4, 4)
    expected_GG[1, 2] = 16  # the square it sees, whole; its neighbours hide none of it
    torch.testing.assert_close(drop_FGG, torch.stack([expected_GG, torch.full((4, 4), 16.0)]))


def test_the_image_is_left_as_it_was() -> None:
    image_3SS = torch.ones(3, SIDE, SIDE)
    occlusion_drop(maps, image_3SS, OCCLUDER)
    assert bool((image_3SS == 1).all())


def one_patch(row: int, column: int) -> Tensor:
    drop_GG = torch.zeros(4, 4)
    drop_GG[row, column] = 3.0
    return drop_GG


def test_the_field_lies_about_the_peak_wherever_that_is() -> None:
    """The patch of rows 4-8, columns 8-12 has its centre at (6, 10); once the peak is there, once 4 to the left."""
    at_it = aligned_field([one_patch(1, 2)], [(6.0, 10.0)], OCCLUDER, SIDE)
    beside_it = aligned_field([one_patch(1, 2)], [(6.0, 6.0)], OCCLUDER, SIDE)
    assert at_it.shape == (2 * SIDE - 1, 2 * SIDE - 1)
    assert at_it.max() == 1
    centre = SIDE - 1
    assert at_it[centre, centre] == 1
    torch.testing.assert_close(beside_it.roll(-4, dims=1), at_it)


def test_images_that_agree_after_alignment_sharpen_the_field() -> None:
    moved = aligned_field([one_patch(1, 2), one_patch(2, 1)], [(6.0, 10.0), (10.0, 6.0)], OCCLUDER, SIDE)
    torch.testing.assert_close(moved, aligned_field([one_patch(1, 2)], [(6.0, 10.0)], OCCLUDER, SIDE))


def test_places_that_cost_nothing_are_no_field() -> None:
    assert aligned_field([torch.zeros(4, 4), -one_patch(0, 0)], [(6.0, 6.0)] * 2, OCCLUDER, SIDE).max() == 0


def test_a_peak_beyond_the_border_is_borne() -> None:
    assert aligned_field([one_patch(0, 0)], [(-9.0, 40.0)], OCCLUDER, SIDE).isfinite().all()


def test_the_region_of_an_image_lies_where_its_unit_looks() -> None:
    field_PP = aligned_field([one_patch(1, 2)], [(6.0, 10.0)], OCCLUDER, SIDE)
    map_HW = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    region_SS = image_field(map_HW, field_PP, torch.tensor([4.0, 12.0]))
    rows, columns = torch.nonzero(region_SS >= REGION_THRESHOLD, as_tuple=True)
    assert (rows.float().mean() + 0.5, columns.float().mean() + 0.5) == (pytest.approx(12, 0.1), pytest.approx(4, 0.1))
    assert region_SS.max() == 1


def test_weaker_units_do_not_enlarge_the_region() -> None:
    field_PP = aligned_field([one_patch(1, 2)], [(6.0, 10.0)], OCCLUDER, SIDE)
    centre_H = torch.tensor([4.0, 12.0])
    alone = image_field(torch.tensor([[0.0, 0.0], [5.0, 0.0]]), field_PP, centre_H) >= REGION_THRESHOLD
    together = image_field(torch.tensor([[0.0, 2.0], [5.0, 0.0]]), field_PP, centre_H) >= REGION_THRESHOLD
    assert torch.equal(alone, together)
    assert image_field(torch.zeros(2, 2), field_PP, centre_H).max() == 0


def test_pixels_are_blamed_for_what_their_hiding_cost() -> None:
    drop_GG = one_patch(1, 2) - 9 * one_patch(3, 0)  # where hiding helps, nothing is lost
    lost_SS = sensitivity_map(drop_GG, OCCLUDER, SIDE)
    rows, columns = torch.nonzero(lost_SS >= REGION_THRESHOLD, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 7, 8, 11)
    assert lost_SS[12:, :4].max() == 0
    assert sensitivity_map(-drop_GG.abs(), OCCLUDER, SIDE).max() == 0
