"""What filters add to a logit adds up to it, and silent or unheard filters add nothing."""

from __future__ import annotations

import pytest
import torch

from interp_model.explain.attribution import contributions
from interp_model.mask import apply_mask, peak_index
from interp_model.network import build_network
from schemas.job import BackboneName, ModelSpec


def test_a_linear_head_gives_every_filter_what_it_wrote() -> None:
    x_FHW = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]], [[0.0, 0.0]]])
    weight_F = torch.tensor([2.0, -1.0, 9.0])
    found = contributions(lambda x: (x.sum(dim=(2, 3)) * weight_F).sum(dim=1, keepdim=True) + 0.5, x_FHW, 0)
    assert found.per_filter_F.tolist() == pytest.approx([6, -3, 0])
    assert found.alone_F.tolist() == pytest.approx([6, -3, 0])
    assert (found.base, found.logit) == pytest.approx((0.5, 3.5))
    assert found.residual == pytest.approx(0, abs=1e-5)


def test_filters_that_stand_in_for_each_other_share_what_neither_adds_alone() -> None:
    """min(x, 1) of two filters that both say 1: silencing either alone costs nothing, together they add 1."""
    found = contributions(lambda x: 1 - (1 - x.sum(dim=(1, 2, 3))[:, None]).relu(), torch.ones(2, 1, 1), 0)
    assert found.alone_F.tolist() == [0, 0]
    assert found.per_filter_F.tolist() == pytest.approx([0.5, 0.5], abs=0.01)


def test_the_gradients_are_integrated_along_the_straight_path_from_zero() -> None:
    """For (x_1 + x_2)^2 the gradient on the path is 2 a (x_1 + x_2). Its mean is half of that at the end."""
    x_FHW = torch.tensor([[[1.0]], [[3.0]]])
    found = contributions(lambda x: x.sum(dim=(1, 2, 3))[:, None].square(), x_FHW, 0)
    assert found.per_filter_F.tolist() == pytest.approx([4, 12])
    assert found.alone_F.tolist() == pytest.approx([16 - 9, 16 - 1])


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16"])
@pytest.mark.parametrize("variant", ["ordinary", "interpretable"])
def test_the_contributions_of_a_network_sum_to_its_logit(backbone: BackboneName, variant: str) -> None:
    torch.manual_seed(0)
    model = ModelSpec.model_validate(
        {"backbone": backbone, "variant": variant, "width": 0.1, "input_size": 64, "fc_width": 48}
    )
    network = build_network(model, 3, from_scratch=True).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.05)  # kinks along the path, as after training
    with torch.no_grad():
        output = network(torch.randn(1, 3, 64, 64))
    x_FHW = output.maps[network.top_layer]
    if variant == "interpretable":
        x_FHW = apply_mask(x_FHW, network.bank_PHW, peak_index(x_FHW))
    for category in range(3):
        found = contributions(network.forward_classifier, x_FHW[0], category)
        assert found.logit == pytest.approx(output.logits[0, category].item(), rel=1e-4, abs=1e-6)
        assert abs(found.residual) < 0.01 * float(found.per_filter_F.abs().sum())
        finer = contributions(network.forward_classifier, x_FHW[0], category, steps=1024)
        assert abs(finer.residual) < 0.002 * float(finer.per_filter_F.abs().sum())
    assert [float(found.per_filter_F[f]) for f in range(len(x_FHW[0])) if x_FHW[0, f].max() == 0] == pytest.approx(
        [0.0] * int((x_FHW[0].amax(dim=(1, 2)) == 0).sum())
    )
