"""Finds a backbone's convolutions in what a checkpoint holds: under which keys, which prefix and which layer names.

Training scripts wrap state dicts (`{"state_dict": ...}`) and modules (`module.features.0.weight`). Known wrappers are
removed where exactly one reading fits the backbone; otherwise the message lists what was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from interp_model.backbones import BACKBONES, TORCHVISION_BACKBONES, Conv, Pool, scaled_channels
from schemas.errors import WeightsError

KINDS = ("weight", "bias")
"""Parameters of a convolution."""

DEPTH = 3
"""Dicts around a state dict that are looked into."""

PREFIXES = frozenset(
    ("module", "model", "net", "network", "backbone", "base", "base_model", "encoder", "feature_extractor", "ema")
)
"""Names of modules around a network, as training scripts call them."""

_TRANSPARENT = frozenset(("module", "_orig_mod"))
"""Names that DataParallel and torch.compile insert at any depth."""

_SHOWN = 5
"""Names that a message lists."""

Names = Literal["orch", "torchvision"]


def state_key(layer: str, kind: str) -> str:
    """Return the key of a convolution's `weight` or `bias` in the state dict of a `Network`."""
    return f"blocks.{layer}.conv.{kind}"


def expected_shapes(backbone: str, width: float) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield (layer, kind, shape) of every parameter that a weights file must have, input to output.

    Args:
        backbone: name of the backbone.
        width: multiplier of every channel count.
    """
    channels = 3
    for layer in BACKBONES[backbone]:
        if isinstance(layer, Conv):
            outputs = scaled_channels(layer, width)
            yield layer.name, "weight", (outputs, channels // layer.groups, layer.kernel, layer.kernel)
            yield layer.name, "bias", (outputs,)
            channels = outputs


def torchvision_keys(backbone: str) -> Iterator[tuple[str, str]]:
    """Yield (our key, torchvision's key) of every parameter.

    torchvision numbers modules in `features`: a convolution with its ReLU takes two numbers, a pooling one.
    """
    index = 0
    for layer in BACKBONES[backbone]:
        if isinstance(layer, Pool):
            index += 1
            continue
        for kind in KINDS:
            yield state_key(layer.name, kind), f"features.{index}.{kind}"
        index += 2


class Convolutions(NamedTuple):
    """The convolutions that a checkpoint holds for a backbone, with values as they are in the file."""

    state: Mapping[str, Tensor]
    """Tensors under our names."""
    names: Names
    """Whose layer names the file has."""
    unwrapped: tuple[str, ...] = ()
    """Keys and the prefix that were removed, outermost first."""


def find_convolutions(content: Mapping[Any, Any], backbone: str, width: float) -> Convolutions:
    """Find the convolutions of a backbone in a checkpoint.

    Args:
        content: what the file holds: a state dict, possibly wrapped, beside anything else.
        backbone: the backbone.
        width: multiplier of every channel count; decides between several state dicts.

    Raises:
        WeightsError: no state dict or several ones are for the backbone, or it has batch normalisation.
    """
    readings = list(_readings(content, backbone))
    if len(readings) > 1:
        fitting = [reading for reading in readings if _fits(reading, backbone, width)]
        if len(fitting) != 1:
            places = "; ".join(" ".join(reading.unwrapped) or "no wrapper" for reading in readings[:_SHOWN])
            raise WeightsError(
                f"the file holds {len(readings)} state dicts with such layers, and {len(fitting)} of them fit "
                f"{backbone} at width {width:g}: {places}. Save the one to use alone, with torch.save(state, path)."
            )
        readings = fitting
    if not readings:
        raise WeightsError(_nothing_found(content, backbone))
    return readings[0]


def _fits(reading: Convolutions, backbone: str, width: float) -> bool:
    shapes = {state_key(layer, kind): shape for layer, kind, shape in expected_shapes(backbone, width)}
    return {key: tuple(value.shape) for key, value in reading.state.items()} == shapes


def _readings(content: Mapping[Any, Any], backbone: str) -> Iterator[Convolutions]:
    ours = [state_key(layer, kind) for layer, kind, _ in expected_shapes(backbone, 1)]
    keys: dict[Names, dict[str, str]] = {"orch": {key: key for key in ours}}
    keys["torchvision"] = {theirs: key for key, theirs in torchvision_keys(backbone)}
    for wrappers, mapping in _mappings(content):
        for prefix, tensors in _by_prefix(mapping).items():
            unwrapped = (*wrappers, f"prefix {prefix!r}") if prefix else wrappers
            for names, renamed in keys.items():
                if not any(_is_layer(names, key) for key in tensors):
                    continue
                if names == "torchvision":
                    _check_torchvision(backbone, tensors)
                state = {key: tensors[theirs] for theirs, key in renamed.items() if theirs in tensors}
                yield Convolutions(state, names, unwrapped)


def _is_layer(names: Names, key: str) -> bool:
    first, _, rest = key.partition(".")
    return first == "blocks" and ".conv." in rest if names == "orch" else first == "features" and rest[:1].isdigit()


def _check_torchvision(backbone: str, tensors: Mapping[str, Tensor]) -> None:
    if backbone not in TORCHVISION_BACKBONES:
        raise WeightsError(
            f"the weights have torchvision's names, but torchvision has no {backbone}. "
            f"Use weights of {backbone}, or one of torchvision's backbones: {', '.join(TORCHVISION_BACKBONES)}."
        )
    normalised = next((key for key in tensors if key.startswith("features.") and key.endswith(".running_mean")), None)
    if normalised:
        raise WeightsError(
            f"the weights are of a network with batch normalisation ({normalised}), which {backbone} does not have. "
            f"Use weights of {backbone} without it."
        )


def _mappings(
    content: Mapping[Any, Any], wrappers: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Yield every dict down to `DEPTH`, with the keys that lead to it."""
    yield wrappers, content
    if len(wrappers) < DEPTH:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, Mapping):
                yield from _mappings(value, (*wrappers, f"key {_short(key)}"))


def readings_of(content: Mapping[Any, Any]) -> Iterator[dict[str, Tensor]]:
    """Yield every state dict that a checkpoint holds, as it is and with known prefixes removed."""
    for _, mapping in _mappings(content):
        yield {key: value for key, value in mapping.items() if isinstance(key, str) and isinstance(value, Tensor)}
        yield from (tensors for prefix, tensors in _by_prefix(mapping).items() if prefix)


def _by_prefix(mapping: Mapping[Any, Any]) -> dict[str, dict[str, Tensor]]:
    """Group the tensors of a dict by the known prefix that is removed from their names."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in mapping.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            prefix, name = _split(key)
            groups.setdefault(prefix, {})[name] = value
    return groups


def _split(key: str) -> tuple[str, str]:
    """Split a name into a known prefix and the name that orch or torchvision uses."""
    parts = key.split(".")
    start = next((i for i, part in enumerate(parts) if part not in PREFIXES | _TRANSPARENT), len(parts))
    rest = [part for part in parts[start:] if part not in _TRANSPARENT]
    inserted = len(parts) - start - len(rest)
    if not inserted:
        return "".join(f"{part}." for part in parts[:start]), ".".join(rest)
    last = max(i for i, part in enumerate(parts) if part in _TRANSPARENT)
    return "".join(f"{part}." for part in parts[: last + 1]), ".".join(rest)


def check_holds_tensors(content: Any) -> None:
    """Check that content is a dict with tensors in it, or in dicts within it.

    Raises:
        WeightsError: it is not; the message names what it holds.
    """
    if isinstance(content, Mapping):
        if any(isinstance(value, Tensor) for _, mapping in _mappings(content) for value in mapping.values()):
            return
        held = f"a dict of {', '.join(_short(key) for key in list(content)[:_SHOWN]) or 'nothing'}"
    else:
        held = f"a {type(content).__name__}"
    raise WeightsError(
        f"the file is not a state dict but {held}. Save one, layer names to tensors, with torch.save(state, path)."
    )


def _nothing_found(content: Mapping[Any, Any], backbone: str) -> str:
    found = [(wrappers, [key for key in mapping if isinstance(key, str) and isinstance(mapping[key], Tensor)])
             for wrappers, mapping in _mappings(content)]  # fmt: skip
    named = [(wrappers, keys) for wrappers, keys in found if keys]
    wrappers, keys = named[0] if named else ((), [])
    where = f" under {' '.join(wrappers)}" if wrappers else ""
    names = ", ".join(_short(key) for key in keys[:_SHOWN])
    first = next(iter(expected_shapes(backbone, 1)))[0]
    return (
        f"the weights have no weight for {first} of {backbone}: the file holds{where} the names {names}. Rename them "
        f"to torchvision's (features.0.weight) or orch's ({state_key(first, 'weight')}); known prefixes are removed "
        f"({', '.join(sorted(PREFIXES))})."
    )


def _short(key: object) -> str:
    text = repr(key) if isinstance(key, str | int | float | None) else type(key).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
