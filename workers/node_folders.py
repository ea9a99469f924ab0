"""Decides in which folders a node of a cluster keeps its files: in its own, if its environment names them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from schemas.order import WorkOrder

HOME, DATA_ROOT = "ORCH_HOME", "ORCH_DATA_ROOT"


def in_node_folders(order: WorkOrder, environment: Mapping[str, str] = os.environ) -> WorkOrder:
    """Return the order with the folders of this node, if it comes from a cluster's driver and this node has its own.

    Args:
        order: an order with the folders of its driver, which may be on another machine.
        environment: variables of the worker's process. ORCH_HOME is the node's home: the folders of prepared images,
            checkpoints and logs have the same names in it as in the driver's. ORCH_DATA_ROOT is its data root.
    """
    if not order.is_clustered:
        return order
    home, data_root = environment.get(HOME), environment.get(DATA_ROOT)
    changes: dict[str, str | None] = {}
    if home:
        root = Path(home).expanduser().resolve()
        for name in ("cache_dir", "checkpoint_dir", "log_dir"):
            given = getattr(order, name)
            changes[name] = given and str(root / Path(given).name)
    if data_root and (order.data_root or order.spec.data.images == "photographs"):  # planned by what was pushed
        changes["data_root"] = str(Path(data_root).expanduser().resolve())
    return order.model_copy(update=changes)
