"""On a cluster, the folders of a node are its own; on a private Ray those of the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.order import WorkOrder
from tests.support.toy import toy_spec
from workers.node_folders import in_node_folders


def order(**changes: object) -> WorkOrder:
    fields = {
        "spec": toy_spec(), "run_id": "r", "attempt": 1, "tracking_uri": "http://mlflow:5000",
        "cache_dir": "/driver/cache", "checkpoint_dir": "/driver/checkpoints", "log_dir": "/driver/logs",
        "data_root": "/driver/photographs", "is_clustered": True,
    }  # fmt: skip
    return WorkOrder.model_validate(fields | changes)


def test_a_nodes_own_folders_win_on_a_cluster(tmp_path: Path) -> None:
    found = in_node_folders(order(), {"ORCH_HOME": str(tmp_path), "ORCH_DATA_ROOT": str(tmp_path / "data")})
    assert (found.cache_dir, found.checkpoint_dir, found.log_dir, found.data_root) == tuple(
        str(tmp_path / name) for name in ("cache", "checkpoints", "logs", "data")
    )


@pytest.mark.parametrize("environment", [{}, {"ORCH_HOME": "", "ORCH_DATA_ROOT": ""}])
def test_a_node_without_folders_of_its_own_uses_the_drivers(environment: dict[str, str]) -> None:
    assert in_node_folders(order(), environment) == order()


def test_what_the_driver_does_not_use_stays_unused(tmp_path: Path) -> None:
    plain = order(log_dir=None, data_root=None)
    found = in_node_folders(plain, {"ORCH_HOME": str(tmp_path), "ORCH_DATA_ROOT": str(tmp_path)})
    assert (found.log_dir, found.data_root) == (None, None)


def test_on_a_private_ray_nothing_changes(tmp_path: Path) -> None:
    private = order(is_clustered=False)
    assert in_node_folders(private, {"ORCH_HOME": str(tmp_path), "ORCH_DATA_ROOT": str(tmp_path)}) == private


def test_a_nodes_photographs_count_where_the_driver_has_planned_by_pushed_ones(tmp_path: Path) -> None:
    spec = toy_spec()
    data = spec.data.model_copy(update={"images": "photographs"})
    pushed = order(spec=spec.model_copy(update={"data": data}), data_root=None)
    assert in_node_folders(pushed, {"ORCH_DATA_ROOT": str(tmp_path)}).data_root == str(tmp_path)
