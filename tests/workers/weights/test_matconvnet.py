"""Imported MatConvNet files compute the same in our networks, or the mismatching layer is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torch import Tensor
from torch.nn import functional

from interp_model.backbones import top_conv
from interp_model.network import build_network, to_input
from interp_model.weights import load_state_into
from schemas.errors import WeightsError
from schemas.job import BackboneName, ModelSpec
from tests.support.real_data import REAL_DATA, needs_real_data
from tests.support.weight_fixtures import Layers, cell, matconvnet_layers, normalization, write_mat, write_mat73
from workers.data.readers.matlab import read_mat
from workers.weights.importing import import_weights, verify_weights


def forward(layers: Layers, x_NCHW: Tensor, upto: str) -> dict[str, Tensor]:
    """Return what MatConvNet computes from a file's fields, in double precision; by layer, after ReLU."""
    maps: dict[str, Tensor] = {}
    for layer in layers:
        numbers = {name: [int(v) for v in layer[name].ravel()] for name in ("pad", "stride", "pool") if name in layer}
        if "pad" in numbers:
            top, bottom, left, right = numbers["pad"]
            beyond = 0.0 if layer["type"] == "conv" else -np.inf
            x_NCHW = functional.pad(x_NCHW, (left, right, top, bottom), value=beyond)
        if layer["type"] == "conv":
            kernel_HWIO, bias = layer["weights"].ravel()
            kernel = torch.from_numpy(kernel_HWIO.astype(np.float64)).permute(3, 2, 0, 1)
            bias_O = torch.from_numpy(bias.ravel().astype(np.float64))
            groups = x_NCHW.shape[1] // kernel.shape[1]
            x_NCHW = functional.conv2d(x_NCHW, kernel, bias_O, numbers["stride"], groups=groups)
        elif layer["type"] == "relu":
            x_NCHW = maps[layer["name"].removeprefix("relu_")] = x_NCHW.relu()
            if upto in maps:
                break
        elif layer["type"] == "pool":
            x_NCHW = functional.max_pool2d(x_NCHW, numbers["pool"], numbers["stride"])
        else:
            size, kappa, alpha, beta = layer["param"].ravel()
            reach = int(size) // 2
            channels = range(x_NCHW.shape[1])
            sums = [x_NCHW[:, max(0, c - reach) : c + reach + 1].square().sum(1) for c in channels]
            x_NCHW = x_NCHW / (kappa + alpha * torch.stack(sums, 1)) ** beta
    return maps


@pytest.mark.parametrize(("backbone", "side"), [("vgg_m", 224), ("vgg_s", 224), ("alexnet_2012", 227), ("vgg16", 64)])
def test_an_imported_network_computes_what_the_files_own_conventions_say(
    tmp_path: Path, backbone: BackboneName, side: int
) -> None:
    layers = matconvnet_layers(backbone)
    state, provenance = import_weights(write_mat(tmp_path / "net.mat", layers, side=side), backbone, 1.0)
    network = build_network(ModelSpec(backbone=backbone, variant="ordinary", input_size=side, fc_width=8), 1)
    load_state_into(network, state)
    first, top = "conv1_1" if backbone == "vgg16" else "conv1", top_conv(backbone).name

    pixels_SS3 = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mean_SS3 = normalization(side, image=True)["averageImage"]
    theirs = torch.from_numpy(pixels_SS3.astype(np.float64) - mean_SS3).permute(2, 0, 1)[None]
    expected = forward(layers, theirs, top)
    x, found = to_input(torch.from_numpy(pixels_SS3)[None], torch.from_numpy(mean_SS3)), {}
    with torch.no_grad():
        for name in list(network.blocks)[: list(network.blocks).index(top) + 1]:
            if name in (first, top):
                found[name] = network.get_submodule(f"blocks.{name}.conv")(x).relu()
            x = network.blocks[name](x)
    for name, map_NFHW in found.items():
        scale = float(expected[name].max())
        assert scale > 1
        torch.testing.assert_close(map_NFHW.double(), expected[name], rtol=0, atol=1e-5 * scale)
    assert provenance.label == "ImageNet (net.mat)"
    assert provenance.mean_rgb == pytest.approx((123.68, 116.779, 103.939), abs=1e-3)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_older_fields_and_matlab_7_3_hold_the_same_network(tmp_path: Path) -> None:
    newer, _ = import_weights(write_mat(tmp_path / "newer.mat", matconvnet_layers("vgg_m")), "vgg_m", 1.0)
    older_file = write_mat(tmp_path / "older.mat", matconvnet_layers("vgg_m", old=True), old=True, image=False)
    older, provenance = import_weights(older_file, "vgg_m", 1.0)
    hdf5, other = import_weights(write_mat73(tmp_path / "v73.mat", matconvnet_layers("vgg_m")), "vgg_m", 1.0)
    assert same(newer, older)
    assert same(newer, hdf5)
    assert provenance.mean_rgb == pytest.approx((123.68, 116.779, 103.939), abs=1e-3)
    assert other.label == "a MatConvNet network (v73.mat)"  # three classes are not ImageNet's


def of(layers: Layers, name: str) -> dict[str, Any]:
    return next(layer for layer in layers if layer["name"] == name)


def narrow(layers: Layers) -> None:
    kernel, bias = of(layers, "conv3")["weights"].ravel()
    of(layers, "conv3")["weights"] = cell(kernel[..., :256].copy(), bias[:, :256].copy())


def infinite(layers: Layers) -> None:
    of(layers, "conv4")["weights"].ravel()[0][0, 0, 0, 0] = np.inf


NO_PAD, ONE_FOUR = np.zeros((1, 4)), np.array([[4.0]])
TWO, CAFFE = np.array([[2.0, 2.0]]), np.array([[5, 1, 2e-5, 0.75]])
SPOILED: list[tuple[Callable[[Layers], Any], str]] = [
    (narrow, r"weight of conv3 has shape \(256, 256, 3, 3\), expected \(512, 256, 3, 3\)"),
    (infinite, r"weight for conv4 of vgg_m holds numbers that are not finite"),
    (lambda net: of(net, "conv2").update(pad=NO_PAD), r"pad for conv2 .* \(1, 1, 1, 1\) and is \(0, 0, 0, 0\)"),
    (lambda net: of(net, "conv1").update(stride=ONE_FOUR), r"stride for conv1 .* \(2, 2\) and is \(4, 4\)"),
    (lambda net: of(net, "conv3").update(dilate=TWO), r"dilation for conv3 .* \(1, 1\) and is \(2, 2\)"),
    (lambda net: of(net, "pool2").update(pad=NO_PAD), r"pad for pool2 .* \(0, 1, 0, 1\) and is \(0, 0, 0, 0\)"),
    (lambda net: of(net, "pool1").update(pool=TWO), r"window for pool1 .* \(3, 3\) and is \(2, 2\)"),
    (lambda net: of(net, "pool1").update(method="avg"), r"method for pool1 .*'max'.*'avg'"),
    (
        lambda net: of(net, "norm_conv1").update(param=CAFFE),
        r"lrn for conv1 .*5, 2\.0, 0\.0001, 0\.75.* \(5, 1, 2e-05,",
    ),
    (lambda net: net.remove(of(net, "norm_conv2")), r"layers for conv2 .*'lrn'\) and is \('conv', 'relu'\)"),
    (lambda net: net.insert(1, {"name": "bn1", "type": "bnorm"}), r"layers for conv1 .* \('conv', 'bnorm', 'relu'"),
    (lambda net: net.__delitem__(slice(10, None)), "no layers for conv4 of vgg_m"),
    (lambda net: of(net, "conv5").pop("weights"), "no weight for conv5 of vgg_m"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_a_layer_that_differs_is_named_with_both_values(
    tmp_path: Path, spoil: Callable[[Layers], Any], message: str
) -> None:
    layers = matconvnet_layers("vgg_m")
    spoil(layers)
    with pytest.raises(WeightsError, match=message):
        import_weights(write_mat(tmp_path / "net.mat", layers), "vgg_m", 1.0)


def test_a_pad_that_no_window_reaches_is_no_difference(tmp_path: Path) -> None:
    layers = matconvnet_layers("vgg_m")
    of(layers, "pool1").update(pad=NO_PAD)  # of conv1's 109 units at 224 px, windows of 3 at stride 2 end on the last
    assert all(row.fits for row in verify_weights(write_mat(tmp_path / "net.mat", layers), "vgg_m", 1.0))


def test_a_file_that_ends_with_the_top_convolution_is_whole(tmp_path: Path) -> None:
    layers = matconvnet_layers("vgg_s")[:-1]
    assert len(import_weights(write_mat(tmp_path / "net.mat", layers), "vgg_s", 1.0)[0]) == 10


def test_another_backbone_is_named_at_the_first_layer_that_parts(tmp_path: Path) -> None:
    path = write_mat(tmp_path / "net.mat", matconvnet_layers("vgg_s"))
    row = next(row for row in verify_weights(path, "vgg_m", 1.0) if not row.fits)
    assert (row.layer, row.kind, row.expected, row.found) == ("pool1", "stride", (2, 2), (3, 3))


def test_a_dagnn_and_a_file_without_a_network_are_told_apart(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "dag.mat", {"layers": np.zeros((1, 3)), "params": np.zeros(3)})
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.zeros(3)})
    for name, message in (("dag.mat", "holds a DagNN"), ("other.mat", "holds no network")):
        with pytest.raises(WeightsError, match=message):
            import_weights(tmp_path / name, "vgg16", 1.0)


def test_a_truncated_file_says_so_in_both_formats(tmp_path: Path) -> None:
    layers = matconvnet_layers("alexnet_2012")
    for path in (write_mat(tmp_path / "v5.mat", layers), write_mat73(tmp_path / "v73.mat", layers)):
        path.write_bytes(path.read_bytes()[:-100_000])
        with pytest.raises(WeightsError, match="damaged MATLAB file"):
            import_weights(path, "alexnet_2012", 1.0)


def test_a_network_for_pixels_between_0_and_1_is_refused(tmp_path: Path) -> None:
    about = {"imageSize": np.array([[224.0, 224, 3]]), "averageImage": np.full((1, 1, 3), 0.45)}
    layers = cell(*matconvnet_layers("alexnet_2012"))
    scipy.io.savemat(tmp_path / "net.mat", {"layers": layers, "meta": {"normalization": about}})
    with pytest.raises(WeightsError, match=r"mean of 0\.45, 0\.45, 0\.45.*pixels of 0 to 255"):
        import_weights(tmp_path / "net.mat", "alexnet_2012", 1.0)


NARROW = 0.05
EMPTY = np.zeros((0, 0))


def about(**changes: Any) -> dict[str, Any]:
    return {"normalization": {**normalization(224, image=False), **changes}}


def struct_array(layers: Layers) -> Any:
    names = sorted({name for layer in layers for name in layer})
    found = np.empty((1, len(layers)), dtype=[(name, object) for name in names])
    for i, layer in enumerate(layers):
        found[0, i] = tuple(layer.get(name, EMPTY) for name in names)
    return found


def test_the_network_of_a_training_is_read_from_its_variable(tmp_path: Path) -> None:
    layers = matconvnet_layers("vgg_m", width=NARROW)
    plain, _ = import_weights(write_mat(tmp_path / "plain.mat", layers), "vgg_m", NARROW)
    for name, content in {
        "net": {"net": {"layers": cell(*layers), "meta": about()}, "state": {"m": cell(1.0)}, "stats": EMPTY},
        "beside": {"net": {"layers": cell(*layers)}, "meta": about(), "layers": EMPTY},
        "in a cell": {"net": cell({"layers": cell(*layers), "meta": about()})},
        "structs": {"net": {"layers": struct_array(layers), "meta": about()}},
    }.items():
        scipy.io.savemat(tmp_path / "net.mat", content, oned_as="row")
        state, provenance = import_weights(tmp_path / "net.mat", "vgg_m", NARROW)
        assert same(state, plain), name
        assert provenance.unwrapped == ("variable 'net'",)


@pytest.mark.parametrize("meta", [{}, EMPTY, cell(), {"normalization": EMPTY}, {"normalization": {}}, "none", 1.0])
def test_a_file_without_normalization_is_read_with_a_caveat(tmp_path: Path, meta: Any) -> None:
    layers = cell(*matconvnet_layers("vgg_m", width=NARROW))
    scipy.io.savemat(tmp_path / "net.mat", {"layers": layers, "meta": meta}, oned_as="row")
    _, provenance = import_weights(tmp_path / "net.mat", "vgg_m", NARROW)
    assert provenance.mean_rgb is None
    assert provenance.caveats == ("the file states no mean of its input; RGB of 0 to 255 is assumed",)


def test_two_networks_in_one_file_are_told_apart_by_what_fits(tmp_path: Path) -> None:
    mine, other = (cell(*matconvnet_layers(name, width=NARROW)) for name in ("vgg_m", "vgg_s"))
    scipy.io.savemat(tmp_path / "net.mat", {"net": {"layers": mine}, "layers": other}, oned_as="row")
    assert import_weights(tmp_path / "net.mat", "vgg_m", NARROW)[1].unwrapped == ("variable 'net'",)
    assert import_weights(tmp_path / "net.mat", "vgg_s", NARROW)[1].unwrapped == ()
    scipy.io.savemat(tmp_path / "net.mat", {"net": {"layers": mine}, "layers": mine}, oned_as="row")
    with pytest.raises(WeightsError, match=r"two networks, `layers` and `net\.layers`, and 2 of them fit"):
        import_weights(tmp_path / "net.mat", "vgg_m", NARROW)


ODD_NETS: list[tuple[dict[str, Any], str]] = [
    ({"net": {"layers": EMPTY, "meta": {}}}, "a `net` with empty layers"),
    ({"net": {"meta": {}}}, "a variable `net` without layers"),
    ({"net": 1.0}, "a variable `net` without layers"),
    ({"net": {"layers": cell({"name": "a"}), "params": EMPTY, "vars": EMPTY}}, "holds a DagNN"),
    ({"layers": cell({"type": EMPTY})}, "holds no network"),
    ({"layers": "text"}, "holds no network"),
]


@pytest.mark.parametrize(("content", "message"), ODD_NETS)
def test_a_file_without_readable_layers_says_what_it_holds(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    scipy.io.savemat(tmp_path / "net.mat", content, oned_as="row")
    with pytest.raises(WeightsError, match=message):
        import_weights(tmp_path / "net.mat", "vgg_m", NARROW)


def kernel(value: Any) -> Callable[[Layers], None]:
    return lambda net: of(net, "conv1").update(weights=cell(value, of(net, "conv1")["weights"].ravel()[1]))


def bias(value: Any) -> Callable[[Layers], None]:
    return lambda net: of(net, "conv1").update(weights=cell(of(net, "conv1")["weights"].ravel()[0], value))


ODD_ARRAYS: list[tuple[Callable[[Layers], Any], str]] = [
    (kernel(np.ones((7, 7, 1, 5))), r"weight of conv1 has shape \(5, 1, 7, 7\), expected \(5, 3, 7, 7\)"),
    (kernel(np.ones((7, 7, 3, 5, 2))), r"weight of conv1 has shape \(7, 7, 3, 5, 2\)"),
    (kernel(np.ones((7, 7, 3, 5), complex)), "weight for conv1 .*complex128, expected floats"),
    (kernel(np.ones((7, 7, 3, 5), np.int8)), "weight for conv1 .*int8, expected floats"),
    (kernel("text"), "weight of conv1 is a str, expected an array"),
    (kernel({"a": 1.0}), "weight of conv1 is a dict, expected an array"),
    (bias(np.ones((5, 2))), r"bias of conv1 has shape \(5, 2\), expected \(5,\)"),
    (bias(EMPTY), r"bias of conv1 has shape \(0,\)"),
    (lambda net: of(net, "conv1").update(weights="text"), "no weight for conv1"),
    (lambda net: of(net, "conv1").update(stride="two"), "stride for conv1 .*not numbers"),
    (lambda net: of(net, "pool1").update(pad=np.array([[np.nan] * 4])), "pad for pool1 .*nan"),
    (lambda net: of(net, "pool1").update(pad=np.array([[1.0, 2.0]])), r"pad for pool1 .*is \(1, 2\)"),
    (lambda net: of(net, "conv2").update(pad=np.ones((300, 300))), "pad for conv2 .*90000 numbers"),
    (lambda net: of(net, "norm_conv1").update(param=np.array([[np.inf] * 4])), "lrn for conv1 .*inf"),
    (lambda net: of(net, "relu_conv1").update(type="x" * 10_000), "layers for conv1 .*'x{30}'"),
]


@pytest.mark.parametrize(("spoil", "message"), ODD_ARRAYS)
def test_a_field_of_another_kind_is_named(tmp_path: Path, spoil: Callable[[Layers], Any], message: str) -> None:
    layers = matconvnet_layers("vgg_m", width=NARROW)
    spoil(layers)
    with pytest.raises(WeightsError, match=message) as caught:
        import_weights(write_mat(tmp_path / "net.mat", layers), "vgg_m", NARROW)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"averageImage": "text"}, "not an array of numbers"),
        ({"averageImage": cell(1.0)}, "not an array of numbers"),
        ({"averageImage": np.full((1, 1, 3), np.nan)}, "mean of nan, nan, nan"),
        ({"averageImage": np.full((224, 224), 120.0)}, "grey images"),
        ({"averageImage": np.array([[104.0, 117.0, 124.0]])}, "More blue than red suggests BGR"),
    ],
)
def test_an_unusable_mean_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    layers = cell(*matconvnet_layers("vgg_m", width=NARROW))
    scipy.io.savemat(tmp_path / "net.mat", {"layers": layers, "meta": about(**change)}, oned_as="row")
    with pytest.raises(WeightsError, match=message):
        import_weights(tmp_path / "net.mat", "vgg_m", NARROW)


@pytest.mark.parametrize("side", ["text", EMPTY, np.array([[np.nan] * 3]), np.array([[-5.0] * 3]), cell(1.0)])
def test_an_unusable_image_size_is_ignored(tmp_path: Path, side: Any) -> None:
    layers = cell(*matconvnet_layers("vgg_m", width=NARROW))
    scipy.io.savemat(tmp_path / "net.mat", {"layers": layers, "meta": about(imageSize=side)}, oned_as="row")
    assert len(import_weights(tmp_path / "net.mat", "vgg_m", NARROW)[0]) == 10


def test_a_stated_order_reorders_kernel_and_mean(tmp_path: Path) -> None:
    layers = matconvnet_layers("vgg_m", width=NARROW)
    usual, _ = import_weights(write_mat(tmp_path / "net.mat", layers), "vgg_m", NARROW)
    mean = {"averageImage": np.array([[104.0, 117.0, 124.0]])}
    scipy.io.savemat(tmp_path / "bgr.mat", {"layers": cell(*layers), "meta": about(**mean)}, oned_as="row")
    found, provenance = import_weights(tmp_path / "bgr.mat", "vgg_m", NARROW, order="bgr")
    first = "blocks.conv1.conv.weight"
    assert torch.equal(found[first], usual[first].flip(1))
    assert provenance.mean_rgb == (124, 117, 104)


@needs_real_data
def test_real_matlab_files_of_both_versions_are_read() -> None:
    kinds = set()
    for path in sorted((REAL_DATA / "authors_mat").glob("**/*.mat")):
        kinds.add(path.read_bytes()[:10])
        truth = read_mat(path)["truth"]
        assert len(truth) > 100, path
        assert all(row.keys() == {"obj", "pHW_center", "pHW_scale"} for row in truth), path
    assert kinds == {b"MATLAB 5.0", b"MATLAB 7.3"}
