"""What `orch doctor` says of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.checkup.machine import check_machine, existing, file_system_of, judge_disk
from orchestrator.checkup.result import Level
from orchestrator.settings import Settings

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /shared nfs4 rw 0 0
/dev/sdb1 /shared/local\\040disk xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/data", "ext4"), ("/shared/home", "nfs4"), ("/shared/local disk/x", "xfs"), ("/sharedness", "ext4")],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_without_a_list_of_mounts_no_file_system_is_known() -> None:
    assert file_system_of(Path("/data"), "") == ""


def test_a_home_on_a_network_is_refused_for_a_database_and_warned_of_behind_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.checkup.machine.file_system_of", lambda path, mounts: "nfs4")
    for uri, level in ((None, Level.BAD), ("http://host:5000", Level.WARNING)):
        home, *_ = check_machine(Settings.model_validate({"home": tmp_path, "tracking_uri": uri}))
        assert (home.subject, home.level) == ("ORCH_HOME", level)
        assert "network file system (nfs4)" in home.text


def test_a_home_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    found = list(check_machine(Settings(home=tmp_path / "a" / "b")))
    assert [one.subject for one in found] == ["ORCH_HOME", "free disk", "memory"]
    assert "a sweep will create it" in found[0].text
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "level"), [(0.5, Level.BAD), (5.0, Level.WARNING), (50.0, Level.OK)])
def test_how_much_free_disk_suffices(free: float, level: Level) -> None:
    assert judge_disk("node h", free, "/home").level is level


def test_a_data_root_without_a_data_set_is_named(tmp_path: Path) -> None:
    for root, says in ((tmp_path, "holds no data set"), (tmp_path / "gone", "is not a folder")):
        *_, found = check_machine(Settings(home=tmp_path, data_root=root))
        assert (found.subject, found.exit_code) == ("photographs", 3)
        assert says in found.text
