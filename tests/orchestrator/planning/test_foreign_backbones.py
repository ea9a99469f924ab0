"""Backbones of other libraries in a sweep: planned, named and refused before any work."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from orchestrator.planning.planner import NullResolver, PlannedSweep, plan
from orchestrator.planning.request import SweepRequest, define
from schemas.errors import SpecError
from schemas.sweep import SweepSpec

RESNET, SQUEEZE = "torchvision:resnet18@layer4", "torchvision:squeezenet1_1@features.12"
LITE = "lite:efficientnet_lite0@_blocks.15"


def planned(backbone: str = RESNET, *, named: tuple[str, ...] = (), **fields: Any) -> PlannedSweep:
    base = {"category": "voc_part/cat", "variant": "interpretable", **fields}
    sweep = SweepSpec(profile="laptop", base=base, axes={"backbone": (backbone,)})
    return plan(define(SweepRequest(sweep=sweep, backbones=named)), NullResolver())


def test_a_network_of_torchvision_is_planned_with_its_pre_training() -> None:
    upstream, job = planned().jobs
    assert job.model.backbone == upstream.model.backbone == RESNET
    assert upstream.model.variant == "ordinary"
    assert RESNET in job.title


def test_the_command_line_narrows_a_sweep_to_it() -> None:
    (_, job) = planned("alexnet", named=(SQUEEZE,)).jobs
    assert job.model.backbone == SQUEEZE


def test_imagenet_means_torchvision_for_torchvisions_networks_so_both_are_one_job() -> None:
    for backbone in (RESNET, "alexnet", "vgg16"):
        keys = {planned(backbone, **{"weights.source": source}).jobs[0].key for source in ("imagenet", "torchvision")}
        assert len(keys) == 1


@pytest.mark.parametrize(
    ("backbone", "fields", "message"),
    [
        ("torchvision:resnet19@layer4", {}, "'resnet19', which torchvision does not have. Did you mean 'resnet1"),
        ("torchvision:resnet18@layer5", {}, "no layer 'layer5'. Did you mean 'layer"),
        ("torchvision:resnet18@fc", {}, "no square map"),
        ("torchvision:vit_b_16@encoder", {}, "cannot be cut there"),
        (RESNET, {"train.freeze_below": "layer7"}, "'layer7', which is not a convolution of torchvision:resnet18"),
        ("resnet18@layer4", {}, "SOURCE:NAME@LAYER, such as torchvision:resnet18@layer4"),
        ("vgg19", {}, "Did you mean 'vgg16'"),
        ("vgg_m", {"weights.source": "imagenet"}, "no package carries such weights for vgg_m"),
        ("vgg_m", {"weights.source": "torchvision"}, "publishes no weights for vgg_m, only for alexnet, vgg16"),
        ("timm:resnet18@layer4", {"weights.source": "torchvision"}, "is not torchvision's"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(backbone: str, fields: dict[str, Any], message: str) -> None:
    if backbone.startswith("timm"):
        pytest.importorskip("timm", reason="needs the extra [timm]")
    with pytest.raises(SpecError, match=message):
        planned(backbone, **fields)


@pytest.mark.parametrize(
    ("backbone", "package", "extra"),
    [("timm:resnet18@layer4", "timm", r"orch\[timm\]"), (LITE, "efficientnet_lite_pytorch", r"orch\[imagenet\]")],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    backbone: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp_model.foreign.network import check_foreign

    check_foreign.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SpecError, match=f"{package} is not installed.*{extra}"):
        planned(backbone)


def test_where_the_new_layer_starts_is_no_matter_of_ordinary_networks_and_of_pre_training() -> None:
    upstream, he = planned(**{"model.new_layer_std": "he"}).jobs
    plain_upstream, plain = planned().jobs
    assert upstream.key == plain_upstream.key
    assert he.key != plain.key
    assert "new layer he" in he.title
    with pytest.raises(SpecError, match="has no new convolution"):
        planned(**{"model.new_layer_std": 0.1, "variant": "ordinary"})
