"""orch in Python: plan and run sweeps, read their numbers, and use their networks on plain torch.

    import orch

    sweep = orch.run("first", workers=2)              # or orch.sweep("first-laptop"), which runs nothing
    print(sweep.to_frame().groupby("model.variant")["location_instability"].mean())
    cat = sweep.job("cat interpretable")
    print(cat.predict("cat.jpg"), cat.filters().head())
    network = cat.network()                           # a torch.nn.Module

The commands of the terminal do the same and more: docs/cli.md. Everything else in the packages is internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp_model.trained import TrainedNetwork
    from orch.networks import instability
    from orch.sweeps import Job, Sweep, plan, run, sweep

__all__ = ["Job", "Sweep", "TrainedNetwork", "instability", "plan", "run", "sweep"]
_NETWORKS = frozenset({"TrainedNetwork", "instability"})


def __getattr__(name: str) -> Any:
    """Import torch only for those who use a network."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _NETWORKS:
        from orch import networks

        return getattr(networks, name)
    from orch import sweeps

    return getattr(sweeps, name)
