"""Part interpretability by hand, under what must not change it, and with parts or filters that show nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp_model.metrics.part_interpretability import (
    BilinearRegions,
    PartInterpretability,
    Regions,
    RoundRegions,
    activation_thresholds,
    associated,
    merge_top,
    part_interpretability,
    valid_units,
)

SIDE, UNITS = 16, 4
CENTRES = torch.tensor([2.0, 6.0, 10.0, 14.0], dtype=torch.float64)


def draw(*units: tuple[int, int], strength: float = 1.0) -> Tensor:
    """One filter's map that fires at these units: (1, H, W)."""
    x_FHW = torch.zeros(1, UNITS, UNITS)
    for row, column in units:
        x_FHW[0, row, column] = strength
    return x_FHW


def box(top: int, left: int, bottom: int, right: int) -> Tensor:
    mask_SS = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask_SS[top:bottom, left:right] = True
    return mask_SS


def round_regions(radius: float = 3.0) -> RoundRegions:
    return RoundRegions(CENTRES, SIDE, radius)


def disc(*centres: tuple[float, float], radius: float = 3.0) -> Tensor:
    """Drawn pixel by pixel, as the paper describes it."""
    drawn_SS = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for row in range(SIDE):
        for column in range(SIDE):
            drawn_SS[row, column] = any((row + 0.5 - y) ** 2 + (column + 0.5 - x) ** 2 <= radius**2 for y, x in centres)
    return drawn_SS


def scene(images: int = 12, filters: int = 5, parts: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_NFHW = torch.rand(images, filters, UNITS, UNITS, generator=generator)
    corner_NK2 = torch.randint(0, SIDE - 7, (images, parts, 2), generator=generator)
    mask_NKSS = torch.stack(
        [torch.stack([box(int(y), int(x), int(y) + 7, int(x) + 6) for y, x in corner_K2]) for corner_K2 in corner_NK2]
    )
    mask_NKSS[::4, 1] = False
    return x_NFHW, mask_NKSS


def thresholds(x_NFHW: Tensor, share: float, chunk: int = 100) -> Tensor:
    valid = valid_units(share, len(x_NFHW) * UNITS**2)
    top_FR = torch.zeros(x_NFHW.shape[1], 0)
    for part in torch.split(x_NFHW, chunk):
        top_FR = merge_top(top_FR, part, valid + 1)
    return activation_thresholds(top_FR, valid)


def found_in(x_NFHW: Tensor, mask_NKSS: Tensor, threshold_F: Tensor, regions: Regions) -> PartInterpretability:
    return part_interpretability([(x_NFHW, regions.count(mask_NKSS))], threshold_F, regions)


def associated_with(mask_1KSS: Tensor) -> Tensor:
    """Whether the region of a filter with one active unit is associated with each part."""
    regions = round_regions()
    return associated(draw((1, 1))[None], regions.count(mask_1KSS), torch.zeros(1), regions)


def measured(x_NFHW: Tensor, mask_NKSS: Tensor, regions: Regions, share: float = 0.25) -> PartInterpretability:
    return found_in(x_NFHW, mask_NKSS, thresholds(x_NFHW, share), regions)


def same(a: PartInterpretability, b: PartInterpretability) -> None:
    for ours, theirs in zip(a, b, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_the_threshold_leaves_exactly_the_share_above_it() -> None:
    x_NFHW = torch.rand(50, 3, UNITS, UNITS, generator=torch.Generator().manual_seed(1))
    threshold_F = thresholds(x_NFHW, 0.005)
    above_F = (x_NFHW > threshold_F[:, None, None]).sum(dim=(0, 2, 3))
    assert above_F.tolist() == [4, 4, 4]  # 0.5 % of 800
    ranked_FM = x_NFHW.transpose(0, 1).flatten(1).sort(dim=1, descending=True).values
    assert torch.equal(threshold_F, ranked_FM[:, 4])


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_the_threshold_of_chunks_is_that_of_the_whole_in_any_order(chunk: int) -> None:
    x_NFHW = torch.rand(20, 3, UNITS, UNITS, generator=torch.Generator().manual_seed(2))
    assert torch.equal(thresholds(x_NFHW.flip(0), 0.05, chunk), thresholds(x_NFHW, 0.05))


def test_no_more_than_the_highest_activations_are_held() -> None:
    top_FR = torch.zeros(2, 0)
    for images in torch.split(torch.rand(90, 2, UNITS, UNITS), 10):
        top_FR = merge_top(top_FR, images, 5)
        assert top_FR.shape == (2, 5)


def test_where_few_units_fire_all_of_them_are_valid() -> None:
    x_NFHW = torch.zeros(10, 1, UNITS, UNITS)
    x_NFHW[0, 0, 1, 1], x_NFHW[3, 0, 2, 0] = 0.1, 5.0
    assert thresholds(x_NFHW, 0.05).tolist() == [0.0]  # 8 units might be valid, 2 fire


def test_the_smallest_set_of_images_still_has_a_valid_unit() -> None:
    assert (valid_units(0.005, 49), valid_units(0.005, 600 * 196)) == (1, 588)


@pytest.mark.parametrize(("outside", "expected"), [(7, True), (8, False)])
def test_a_part_is_associated_above_an_overlap_of_a_fifth(outside: int, expected: bool) -> None:
    region_X = disc((6.0, 6.0)).flatten()
    assert region_X.sum() == 32
    mask_X = torch.zeros(SIDE**2, dtype=torch.bool)
    mask_X[region_X.nonzero()[:8]] = True
    mask_X[(~region_X).nonzero()[:outside]] = True  # 8 / (32 + 8) is a fifth and not above it
    (hit_FK,) = associated_with(mask_X.view(1, 1, SIDE, SIDE))
    assert hit_FK.tolist() == [[expected]]


@pytest.mark.parametrize("radius", [0.2, 1.0, 2.9, 5.0, 40.0])
def test_round_regions_are_the_overlapped_discs_pixel_by_pixel(radius: float) -> None:
    fired = [(1, 1), (1, 2), (3, 0)]
    mask_KSS = torch.stack([box(0, 0, 9, 8), box(9, 3, 14, 16)])
    regions = round_regions(radius)
    region_FC = regions.cover(draw(*fired), torch.zeros(1))
    drawn_SS = disc(*((float(CENTRES[r]), float(CENTRES[c])) for r, c in fired), radius=radius)
    assert (region_FC @ regions.size_C).tolist() == [drawn_SS.sum().item()]
    assert (region_FC @ regions.count(mask_KSS[None])[0]).tolist() == [
        (drawn_SS & mask_KSS).flatten(1).sum(dim=1).tolist()
    ]
    assert regions.size_C.sum() == SIDE**2


def test_units_whose_centre_lies_outside_the_image_still_cover_its_border() -> None:
    regions = RoundRegions(torch.tensor([-1.0, 7.0], dtype=torch.float64), SIDE, 3.0)
    x_FHW = torch.zeros(1, 2, 2)
    x_FHW[0, 0, 0] = 1
    covered = regions.cover(x_FHW, torch.zeros(1)) @ regions.size_C
    assert covered.tolist() == [disc((-1.0, -1.0)).sum().item()]
    assert covered.item() > 0


def test_bilinear_regions_end_where_the_interpolated_map_falls_to_the_threshold() -> None:
    regions = BilinearRegions(CENTRES, SIDE)
    region_SS = regions.cover(draw((1, 2)), torch.tensor([0.5])).view(SIDE, SIDE)
    # Around (row 6, column 10) the map falls off as (1 - |dy| / 4) (1 - |dx| / 4); in an image, columns come second.
    expected_SS = torch.tensor(
        [
            [max(0.0, 1 - abs(r + 0.5 - 6) / 4) * max(0.0, 1 - abs(c + 0.5 - 10) / 4) > 0.5 for c in range(SIDE)]
            for r in range(SIDE)
        ]
    )
    assert 0 < expected_SS.sum() < SIDE**2 / 8
    mask_KSS = torch.stack([expected_SS, expected_SS & box(0, 0, 6, SIDE)])
    counted = region_SS.flatten()[None] @ regions.count(mask_KSS[None])[0]
    assert counted.tolist() == [[expected_SS.sum().item(), mask_KSS[1].sum().item()]]
    assert region_SS.sum() == expected_SS.sum()


def test_beyond_the_outermost_centres_a_bilinear_map_goes_on_as_it_is_there() -> None:
    regions = BilinearRegions(CENTRES, SIDE)
    covered = regions.cover(draw((0, 0)), torch.tensor([0.99])) @ regions.count(box(0, 0, 2, 2)[None, None])[0]
    assert covered.tolist() == [[4.0]]


def test_the_share_of_the_images_with_a_part_and_the_best_part_of_a_filter() -> None:
    head, torso = disc((6.0, 6.0)), disc((10.0, 10.0))
    nothing = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    x_NFHW = torch.stack([draw((1, 1)), draw((1, 1)), draw((2, 2)), draw((2, 2))])
    mask_NKSS = torch.stack(
        [torch.stack(parts) for parts in ((head, torso), (head, torso), (head, torso), (nothing, torso))]
    )
    found = found_in(x_NFHW, mask_NKSS, torch.zeros(1), round_regions(2.9))
    assert found.images_K.tolist() == [3, 4]
    assert found.per_part_FK.tolist() == [[pytest.approx(2 / 3), 0.5]]
    assert found.per_filter_F.tolist() == [pytest.approx(2 / 3)]
    assert found.best_part_F.tolist() == [0]


def test_one_filter_may_be_several_parts_of_an_image() -> None:
    mask_KSS = torch.stack([disc((6.0, 6.0)) & box(0, 0, SIDE, 6), disc((6.0, 6.0)) & box(0, 6, SIDE, SIDE)])
    assert associated_with(mask_KSS[None]).tolist() == [[[True, True]]]


def test_the_average_is_over_the_filters_that_have_a_value() -> None:
    head = disc((6.0, 6.0))[None, None]
    x_NFHW = torch.cat([draw((1, 1)), draw((3, 3)), draw()])[None]
    found = found_in(x_NFHW, head, torch.zeros(3), round_regions())
    assert found.per_filter_F[:2].tolist() == [1, 0]
    assert found.left_out_F.tolist() == [False, False, True]
    assert found.mean == 0.5


def test_a_part_that_no_image_shows_has_no_value_and_spoils_none() -> None:
    mask_KSS = torch.stack([torch.zeros(SIDE, SIDE, dtype=torch.bool), disc((6.0, 6.0))])
    found = found_in(draw((1, 1))[None], mask_KSS[None], torch.zeros(1), round_regions())
    assert found.per_part_FK.isnan().tolist() == [[True, False]]
    assert (found.per_filter_F.tolist(), found.best_part_F.tolist()) == ([1.0], [1])


def test_images_on_which_no_filter_has_a_valid_unit_have_no_part() -> None:
    x_NFHW, mask_NKSS = draw((1, 1))[None], disc((6.0, 6.0))[None, None]
    regions = round_regions()
    assert not associated(x_NFHW, regions.count(mask_NKSS), torch.full((1,), 2 * float(x_NFHW.max())), regions).any()


def test_without_any_part_no_filter_has_a_value() -> None:
    empty = torch.zeros(1, 2, SIDE, SIDE, dtype=torch.bool)
    found = found_in(draw((1, 1))[None], empty, torch.zeros(1), round_regions())
    assert found.left_out_F.tolist() == [True]
    assert found.images_K.tolist() == [0, 0]


@pytest.mark.parametrize("regions", [round_regions(), BilinearRegions(CENTRES, SIDE)], ids=["round", "bilinear"])
class TestInvariance:
    def test_chunks_give_what_the_whole_gives(self, regions: Regions) -> None:
        x_NFHW, mask_NKSS = scene()
        whole = measured(x_NFHW, mask_NKSS, regions)
        assert 0 < whole.mean < 1
        chunks = zip(torch.split(x_NFHW, 5), torch.split(regions.count(mask_NKSS), 5), strict=True)
        same(whole, part_interpretability(chunks, thresholds(x_NFHW, 0.25), regions))

    def test_the_strength_of_a_filter_does_not_matter(self, regions: Regions) -> None:
        x_NFHW, mask_NKSS = scene()
        scaled_NFHW = x_NFHW * torch.tensor([0.5, 2.0, 8.0, 1.0, 0.25])[:, None, None]
        same(measured(x_NFHW, mask_NKSS, regions), measured(scaled_NFHW, mask_NKSS, regions))

    def test_mirroring_and_transposing_images_changes_nothing(self, regions: Regions) -> None:
        x_NFHW, mask_NKSS = scene()
        plain = measured(x_NFHW, mask_NKSS, regions)
        same(plain, measured(x_NFHW.flip(3), mask_NKSS.flip(3), regions))
        same(plain, measured(x_NFHW.transpose(2, 3), mask_NKSS.transpose(2, 3), regions))

    def test_the_order_of_filters_parts_and_images_does_not_matter(self, regions: Regions) -> None:
        x_NFHW, mask_NKSS = scene()
        plain = measured(x_NFHW, mask_NKSS, regions)
        filters, parts, images = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 0, 1]), torch.arange(12).flip(0)
        moved = measured(x_NFHW[images][:, filters], mask_NKSS[images][:, parts], regions)
        torch.testing.assert_close(plain.per_part_FK[filters][:, parts], moved.per_part_FK)
        torch.testing.assert_close(plain.per_filter_F[filters], moved.per_filter_F)


def test_many_filters_are_measured_in_groups_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x_NFHW, mask_NKSS = scene(filters=9)
    whole = measured(x_NFHW, mask_NKSS, round_regions())
    monkeypatch.setattr("interp_model.metrics.part_interpretability._CHUNK", {"cpu": 1})
    same(whole, measured(x_NFHW, mask_NKSS, round_regions()))


@pytest.mark.parametrize("regions", [round_regions(), BilinearRegions(CENTRES, SIDE)], ids=["round", "bilinear"])
def test_parts_are_counted_alike_from_masks_and_from_bits(regions: Regions) -> None:
    generator = torch.Generator().manual_seed(0)
    bits_NSS = torch.randint(256, (3, SIDE, SIDE), generator=generator).to(torch.uint8)
    bit_K = [1 << 7, 0, *(1 << k for k in range(7))]
    mask_NKSS = torch.stack([(bits_NSS & bit) > 0 for bit in bit_K], dim=1)
    count_NCK = regions.count_bits(bits_NSS, bit_K)
    assert torch.equal(count_NCK, regions.count(mask_NKSS))
    assert torch.equal(count_NCK.sum(dim=1), mask_NKSS.flatten(2).sum(dim=2).float())
    assert count_NCK[:, :, 1].count_nonzero() == 0
