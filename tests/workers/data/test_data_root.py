"""An opened data root reads each file once for any number of specs, and digests stay unchanged."""

from __future__ import annotations

import builtins
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.resolver import DiskResolver
from schemas.errors import DataError
from schemas.job import DataSpec, JobSpec
from tests.support.photograph_files import write_voc_table
from workers.data.checks import check_data, data_digest
from workers.data.data_root import DataRoot
from workers.data.prepared.photographs import set_key
from workers.data.readers.sources import NEGATIVES

JPEGS = "voc_part/VOCdevkit/VOC2010/JPEGImages"
CAT, COW, DOG, BIRD = "voc_part/cat", "voc_part/cow", "voc_part/dog", "cub200/bird"


@contextmanager
def counted_opens(folder: Path) -> Iterator[Counter[str]]:
    """Count how often each file under a folder is opened."""
    opened: Counter[str] = Counter()
    real = builtins.open

    def counting(file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, str | Path) and Path(file).is_relative_to(folder):
            opened[str(Path(file).relative_to(folder))] += 1
        return real(file, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", counting)
        patch.setattr(io, "open", counting)
        yield opened


def photographs(*categories: str, **fields: Any) -> DataSpec:
    return DataSpec(categories=categories, images="photographs", **fields)


def job(data: DataSpec) -> JobSpec:
    return JobSpec.model_validate(
        {"data": data, "model": {"backbone": "alexnet", "variant": "ordinary"}, "loss": "softmax"}
        if len(data.categories) > 1
        else {"data": data, "model": {"backbone": "alexnet", "variant": "ordinary"}}
    )


def test_a_whole_plan_reads_every_image_once(data_root: Path) -> None:
    specs = [photographs(name, test_fraction=share) for name in (CAT, COW, BIRD) for share in (0.1, 0.2)]
    specs.append(photographs(CAT, COW, BIRD))
    resolver = DiskResolver(data_root, None)
    with counted_opens(data_root) as opened:
        digests = [resolver.data_digest(data) for data in specs]
        resolver.check_data([job(data) for data in specs])
    images = {name: count for name, count in opened.items() if name.endswith(".jpg")}
    assert len(images) == 30 + 28 + 2 + 52  # no photograph of the folder of negatives
    assert set(images.values()) == {1}
    assert {opened[f"voc_part/truth/{key}.csv"] for key in ("cat", "cow", "dog")} == {2}  # parsed, and for the digest
    assert opened["CUB_200_2011/images.txt"] == 2
    assert len(set(digests)) == 4


def test_a_category_is_checked_once_however_many_specs_name_it(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: Counter[str] = Counter()
    monkeypatch.setattr("workers.data.checks.misfit", lambda record, _: compared.update([record.name]))
    root = DataRoot.open(data_root)
    for _ in range(2):
        check_data(photographs(CAT), root)
        check_data(photographs(CAT, negatives="folder"), root)
        check_data(photographs(COW, CAT), root)
    assert len(compared) == 60 + 56 + 4 + 52 + 50
    assert set(compared.values()) == {1}
    assert root.fitting == {CAT, COW, DOG, BIRD, NEGATIVES}


def test_what_is_refused_is_refused_again(data_root: Path) -> None:
    for path in sorted((data_root / JPEGS).glob("2008_01*.jpg"))[:4]:
        path.write_bytes(b"")
    root = DataRoot.open(data_root)
    for _ in range(2):
        with pytest.raises(DataError, match="8 of 60 images of voc_part/cat"):
            check_data(photographs(CAT), root)
    check_data(photographs(COW, negatives="folder"), root)


def test_a_second_process_reads_no_image_again(data_root: Path, tmp_path: Path) -> None:
    before = data_digest(photographs(CAT), DataRoot.open(data_root, tmp_path / "cache"))
    with counted_opens(data_root) as opened:
        root = DataRoot.open(data_root, tmp_path / "cache")
        check_data(photographs(CAT), root)
        assert data_digest(photographs(CAT), root) == before
    assert not [name for name in opened if name.endswith(".jpg")]


def test_planning_without_a_cache_writes_nothing(data_root: Path) -> None:
    before = sorted(data_root.parent.rglob("*"))
    root = DataRoot.open(data_root)
    check_data(photographs(CAT), root)
    data_digest(photographs(CAT), root)
    assert sorted(data_root.parent.rglob("*")) == before


def test_a_change_is_seen_by_a_root_that_is_opened_again(data_root: Path) -> None:
    root = DataRoot.open(data_root)
    before = root.category_digest(CAT)
    table = data_root / "voc_part/truth/cat.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    assert root.category_digest(CAT) == before
    assert DataRoot.open(data_root).category_digest(CAT) != before


def write_pinned_root(root: Path) -> None:
    """Write fifty cats, cows and negatives whose bytes do not depend on the version of a library."""

    def write_grey(path: Path, width: int, height: int, level: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P6 %d %d 255\n" % (width, height) + bytes([level]) * (3 * width * height))

    corners = {"xmin": 1, "xmax": 60, "ymin": 1, "ymax": 60}
    for seed, key in enumerate(("cat", "cow")):
        names = [f"2008_{seed:02d}{number:04d}.jpg" for number in range(50)]
        for number, name in enumerate(names):
            write_grey(root / JPEGS / name, 60, 60, number)
        head = {"object_id": 1, **corners, "part": 1, "part_y": 15.5, "part_x": 10.5}
        write_voc_table(root / f"voc_part/truth/{key}.csv", [{"image": name, **head} for name in names])
    for number in range(50):
        write_grey(root / f"neg/{number:02d}.png", 30, 20, number)


@pytest.mark.parametrize(
    ("categories", "negatives", "digest"),
    [
        ((CAT,), "other_categories", "ca71a79d78dc595c"),
        ((CAT,), "folder", "d26eb2606fa9ba87"),
        ((CAT, COW), "other_categories", "ca71a79d78dc595c"),
    ],
)
def test_digests_stay_as_they_are(tmp_path: Path, categories: tuple[str, ...], negatives: str, digest: str) -> None:
    """Keys of jobs contain them: a changed digest would run every finished job again."""
    write_pinned_root(tmp_path)
    root = DataRoot.open(tmp_path)
    data = photographs(*categories, negatives=negatives)
    check_data(data, root)
    assert data_digest(data, root) == digest


def test_names_of_prepared_sets_stay_as_they_are(tmp_path: Path) -> None:
    """Prepared images are found by them."""
    write_pinned_root(tmp_path)
    root = DataRoot.open(tmp_path)
    assert set_key(root, CAT, 48) == "voc_part-cat-48px-2553ffaca91fc881-r3"
