"""Features of frozen layers are computed once per machine, and are bit for bit those that a job computes itself."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray

from schemas.errors import Interrupted
from tests.support.toy import CPU, SIDE, toy_network, toy_spec, toy_split
from workers.training.frozen_features import ENDING, FOLDER, PARTIAL, FeatureStore, abandoned, kept_features
from workers.training.inputs import Inputs, features_name

MEAN = np.random.default_rng(0).uniform(0, 80, (SIDE, SIDE, 3)).astype(np.float32)
SHAPE = (6, 2, 2)
BYTES = 4 * 6 * 2 * 2 + 32
ROWS = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def silent(_: str) -> None: ...


def rows() -> Iterator[NDArray[np.float32]]:
    yield ROWS[:4]
    yield ROWS[4:]


def store(folder: Path, limit: int = 10**6) -> FeatureStore:
    return FeatureStore(folder, limit)


def inputs(network: Any, kept: FeatureStore | None, images: int = 70) -> Inputs:
    return Inputs(network, toy_split(images), MEAN, CPU, store=kept)


def test_kept_features_have_the_bits_of_computed_ones(tmp_path: Path) -> None:
    network = toy_network(toy_spec(train__freeze_below="conv4"))
    alone, first, second = inputs(network, None), *(inputs(network, store(tmp_path, 10**9)) for _ in range(2))
    for taken in (alone, first, second):
        taken.keep_features(horizontal_flip=True, report=silent)
    index_B, flip_B = np.array([3, 69, 3, 0]), np.array([True, False, False, True])
    expected = alone.take(index_B, flip_B)
    assert torch.equal(first.take(index_B, flip_B), expected)
    assert torch.equal(second.take(index_B, flip_B), expected)
    assert len(list(kept_features(tmp_path))) == 1


def test_features_too_large_for_memory_are_read_from_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.training.inputs.MEMORY_LIMIT", 0)
    network = toy_network(toy_spec(train__freeze_below="conv4"))
    alone, kept = inputs(network, None), inputs(network, store(tmp_path, 10**9))
    for taken in (alone, kept):
        taken.keep_features(horizontal_flip=True, report=silent)
    monkeypatch.setattr(network, "forward_trunk", pytest.fail)
    found = kept.take(np.array([3, 69]), np.array([True, False]))
    monkeypatch.undo()
    torch.testing.assert_close(found, alone.take(np.array([3, 69]), np.array([True, False])))


def test_the_second_job_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = toy_network(toy_spec(train__freeze_below="conv4"))
    inputs(network, store(tmp_path, 10**9)).keep_features(horizontal_flip=True, report=silent)
    second = inputs(network, store(tmp_path, 10**9))
    phases: list[str] = []
    second.keep_features(horizontal_flip=True, report=phases.append)
    assert phases == []


def test_measured_images_use_what_is_kept_for_whole_batches_alone(tmp_path: Path) -> None:
    network = toy_network(toy_spec(train__freeze_below="conv4"))
    plain, mapped = inputs(network, None), inputs(network, store(tmp_path, 10**9))
    mapped.map_batches(silent)
    assert mapped._kept is not None
    mapped._kept.zero_()  # a private copy: the file is unchanged
    for index_B in mapped.batches():
        assert not mapped.as_they_are(index_B).any()
    odd_B = np.array([1, 2, 3])
    assert torch.equal(mapped.as_they_are(odd_B), plain.as_they_are(odd_B))
    again = inputs(network, store(tmp_path, 10**9))
    again.map_batches(pytest.fail)
    for index_B in again.batches():
        assert torch.equal(again.as_they_are(index_B), plain.as_they_are(index_B))


def test_the_name_changes_with_all_that_determines_the_bits() -> None:
    spec = toy_spec(train__freeze_below="conv4")
    network, split = toy_network(spec), toy_split(10)

    def name(**changes: Any) -> str:
        given = {"network": network, "split": split, "mean_SS3": MEAN, "device": CPU, "flips": True, "batch": 4}
        return features_name(**(given | changes))

    first = name()
    assert first == name(network=toy_network(spec))  # the same seed
    other_weights, other_head = toy_network(spec), toy_network(spec)
    other_weights.blocks["conv3"].get_parameter("conv.bias").data[0] += 1e-6
    other_head.blocks["conv4"].get_parameter("conv.bias").data[0] += 1.0
    other_threads = torch.get_num_threads() + 1
    changed = [
        name(network=other_weights),
        name(network=toy_network(toy_spec(train__freeze_below="conv3"))),
        name(split=toy_split(11)),
        name(mean_SS3=MEAN + np.float32(1e-3)),
        name(flips=False),
        name(batch=5),
    ]
    torch.set_num_threads(other_threads)
    try:
        changed.append(name())
    finally:
        torch.set_num_threads(other_threads - 1)
    assert len({first, *changed}) == 1 + len(changed)
    assert name(network=other_head) == first  # what is trained does not count


@pytest.mark.parametrize("damage", ["half", "flipped", "longer", "empty"])
def test_a_damaged_file_is_computed_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store(tmp_path).get("a", SHAPE, rows(), silent)
    (path,) = (tmp_path / FOLDER).glob(f"*{ENDING}")
    content = bytearray(path.read_bytes())
    content[7] ^= damage == "flipped"
    path.write_bytes({"half": content[:60], "longer": content + b"x", "empty": b""}.get(damage, content))
    with caplog.at_level(logging.WARNING, "orch.job"):
        found = store(tmp_path).get("a", SHAPE, rows(), silent)
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(found, ROWS)
    np.testing.assert_array_equal(store(tmp_path).get("a", SHAPE, iter(()), silent), ROWS)


def test_an_interrupted_computation_leaves_nothing(tmp_path: Path) -> None:
    def stops() -> Iterator[Any]:
        yield ROWS[:4]
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        store(tmp_path).get("a", SHAPE, stops(), silent)
    assert [path for path in (tmp_path / FOLDER).iterdir() if path.suffix != ".lock"] == []
    np.testing.assert_array_equal(store(tmp_path).get("a", SHAPE, rows(), silent), ROWS)


def test_a_half_file_of_a_killed_process_is_replaced_and_found(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f".{name}{ENDING}{PARTIAL}").write_bytes(b"half")
    held = FileLock(folder / f".b{ENDING}.lock")
    with held:  # a process that still writes
        assert [path.name for path in abandoned(tmp_path)] == [f".a{ENDING}{PARTIAL}"]
        np.testing.assert_array_equal(store(tmp_path).get("a", SHAPE, rows(), silent), ROWS)
        assert list(folder.glob(f".*{PARTIAL}")) == [folder / f".b{ENDING}{PARTIAL}"]


def test_the_longest_unused_file_makes_room_and_one_in_use_stays(tmp_path: Path) -> None:
    two = store(tmp_path, 2 * BYTES)
    in_use = two.get("old", SHAPE, rows(), silent)
    two.get("newer", SHAPE, rows(), silent)
    for age, name in enumerate(("newer", "old")):
        os.utime(tmp_path / FOLDER / f"{name}{ENDING}", (age, age))  # `old` was used last; `newer` first
    assert two.get("newest", SHAPE, rows(), silent) is not None
    assert sorted(one.path.name for one in kept_features(tmp_path)) == [f"newest{ENDING}", f"old{ENDING}"]
    os.utime(tmp_path / FOLDER / f"old{ENDING}", (0, 0))
    assert two.get("last", SHAPE, rows(), silent) is not None  # `old` is older, but in use
    assert sorted(one.path.name for one in kept_features(tmp_path)) == [f"last{ENDING}", f"old{ENDING}"]
    np.testing.assert_array_equal(in_use, ROWS)


@pytest.mark.parametrize("limit", [0, BYTES - 1])
def test_what_exceeds_the_limit_is_not_kept(tmp_path: Path, limit: int) -> None:
    assert store(tmp_path, limit).get("a", SHAPE, rows(), silent) is None
    assert list(kept_features(tmp_path)) == []


def test_what_exceeds_the_limit_removes_nothing(tmp_path: Path) -> None:
    kept = store(tmp_path, BYTES)
    kept.get("a", SHAPE, rows(), silent)
    assert kept.get("b", (2 * SHAPE[0], *SHAPE[1:]), rows(), silent) is None
    assert [one.path.name for one in kept_features(tmp_path)] == [f"a{ENDING}"]


def test_a_full_disk_keeps_nothing_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert store(tmp_path).get("a", SHAPE, rows(), silent) is None
    monkeypatch.undo()
    np.testing.assert_array_equal(store(tmp_path).get("a", SHAPE, rows(), silent), ROWS)


def _get(folder: Path, barrier: Any, computed: Any, answers: Any) -> None:
    def counted() -> Iterator[Any]:
        with computed.get_lock():
            computed.value += 1
        yield from rows()

    barrier.wait()
    found = store(folder).get("a", SHAPE, counted(), silent)
    answers.put(found is not None and np.array_equal(found, ROWS))


def test_of_several_processes_one_computes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, computed, answers = context.Barrier(4), context.Value("i", 0), context.Queue()
    processes = [context.Process(target=_get, args=(tmp_path, barrier, computed, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=60) for _ in processes] == [True] * 4
    for process in processes:
        process.join(60)
    assert computed.value == 1
