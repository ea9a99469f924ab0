"""The interpretable CNN itself: templates, masks, filter loss, backbones, metrics; no files, no clock, no cluster.

`make_interpretable` and `filter_losses` are for use without the rest of orch; see docs/backbones.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp_model.foreign.network import filter_losses, make_interpretable

__all__ = ["filter_losses", "make_interpretable"]


def __getattr__(name: str) -> Any:
    """Import torch only for those who use a network: the planner reads the tables of this package without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from interp_model.foreign import network

    return getattr(network, name)
