"""A job's splits, labels, landmarks and negatives are the same on every call and in every process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from schemas.categories import BY_ID, CATEGORIES
from schemas.errors import DataError
from schemas.job import RECIPE_VERSION, DataSpec, EvaluationSpec
from workers.data.dataset import JobData, load_job_data
from workers.data.generated.generate import generate, merge_parts
from workers.data.prepared import photographs
from workers.data.prepared.image_sets import FOLDER

SIZE = 48
ANIMALS = DataSpec(categories=("voc_part/cat",), train_per_category=36, test_per_category=18)
PHOTOGRAPHS = DataSpec(categories=("voc_part/cat",), images="photographs")


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def load(data: DataSpec, cache: Path, root: Path | None = None, *, split: str = "test", seed: int = 0) -> JobData:
    evaluation = EvaluationSpec.model_validate({"split": split})
    return load_job_data(data, evaluation, input_size=SIZE, seed=seed, cache_dir=cache, data_root=root)


def test_a_generated_job_has_its_animals_and_one_negative_of_each_other_category(shared_cache: Path) -> None:
    data = load(ANIMALS, shared_cache)
    assert data.train.labels_N.tolist() == [1] * 36 + [0] * 36
    assert data.test.labels_N.tolist() == [1] * 18 + [0] * 18
    negatives = data.train.categories_N[data.train.labels_N == 0]
    assert {data.category_names[i] for i in negatives} == {c.id for c in CATEGORIES} - {"voc_part/cat"}
    assert data.generated
    assert set(data.train.names_N) & set(data.test.names_N) == set()


def test_pictures_and_landmarks_are_the_generator_s(shared_cache: Path) -> None:
    data = load(ANIMALS, shared_cache)
    for index in (0, 17, 35):
        drawn = generate("voc_part/cat", index, SIZE)
        assert (data.train.take([index])[0] == drawn.image_SS3).all()
        expected = [drawn.landmarks[name] for name in BY_ID["voc_part/cat"].landmarks]
        np.testing.assert_allclose(data.train.landmarks_NK2[index], expected, rtol=1e-6)
    assert data.landmark_names == BY_ID["voc_part/cat"].landmarks
    assert np.isnan(data.train.landmarks_NK2[36:]).all()


def test_the_mean_is_that_of_the_training_pictures(shared_cache: Path) -> None:
    data = load(ANIMALS, shared_cache)
    pictures = data.train.take(range(len(data.train))).astype(np.float64)
    np.testing.assert_allclose(data.mean_SS3, pictures.mean(axis=0), rtol=1e-5)


def test_filters_are_measured_on_positives_of_the_chosen_split(shared_cache: Path) -> None:
    held_out, every = load(ANIMALS, shared_cache), load(ANIMALS, shared_cache, split="all")
    assert (len(held_out.measured), len(every.measured)) == (18, 54)
    assert set(held_out.measured.labels_N) == set(every.measured.labels_N) == {1}
    assert held_out.measured.names_N == held_out.test.names_N[:18]
    assert held_out.held_out_N is None
    assert every.held_out_N is not None
    alone = [name for name, kept in zip(every.measured.names_N, every.held_out_N, strict=True) if kept]
    assert sorted(alone) == sorted(held_out.measured.names_N)
    assert not set(alone) & set(every.train.names_N)


@pytest.mark.parametrize(("split", "first", "count"), [("test", ("test", 0), 18), ("all", ("train", 0), 54)])
def test_measured_animals_have_the_map_of_their_parts(
    shared_cache: Path, split: str, first: tuple[str, int], count: int
) -> None:
    data = load(ANIMALS, shared_cache, split=split)
    assert data.measured.parts_NSS is not None
    maps_NSS = data.measured.parts_NSS.take(range(count))
    assert maps_NSS.shape == (count, SIZE, SIZE)
    parts = BY_ID["voc_part/cat"].parts
    for row, (side, index) in {0: first, count - 1: ("test", 17)}.items():
        drawn = generate("voc_part/cat", index, SIZE, split=side)
        assert (data.measured.take([row])[0] == drawn.image_SS3).all()
        assert (maps_NSS[row] == merge_parts(drawn.parts_SS, parts)).all()


def test_parts_are_kept_of_the_measured_pictures_alone(tmp_path: Path) -> None:
    data = load(ANIMALS, tmp_path)
    assert data.train.parts_NSS is data.test.parts_NSS is None
    kept = [path.name for path in (tmp_path / FOLDER).iterdir() if path.is_dir() and "parts" in path.name]
    assert len(kept) == 2  # 18 pictures in sets of 16
    assert all(name.startswith("voc_part-cat-test-") for name in kept)


def test_the_seed_chooses_negatives_and_leaves_positives_alone(shared_cache: Path) -> None:
    first, second = load(ANIMALS, shared_cache), load(ANIMALS, shared_cache, seed=1)
    assert first.train.names_N[:36] == second.train.names_N[:36]
    assert first.train.names_N[36:] != second.train.names_N[36:]
    assert second.train.names_N == load(ANIMALS, shared_cache, seed=1).train.names_N


def test_several_categories_are_labelled_by_their_place(shared_cache: Path) -> None:
    names = ("cub200/bird", "voc_part/cow", "ilsvrc_animal_part/n01443537")
    several = DataSpec(categories=names, train_per_category=5, test_per_category=3)
    data = load(several, shared_cache)
    assert data.train.labels_N.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert data.label_names == ("cub-bird", "voc-cow", "ilsvrc-goldfish")
    assert data.landmark_names == ("forehead", "back", "tail", "head", "neck", "torso")
    cow = data.train.landmarks_NK2[5:10]
    assert np.isnan(cow[:, :3]).all()
    assert not np.isnan(cow[:, 3:]).all()


def test_processes_that_prepare_at_once_share_the_work(tmp_path: Path) -> None:
    code = (
        "import sys, zlib; from pathlib import Path; from schemas.job import DataSpec, EvaluationSpec\n"
        "from workers.data.dataset import load_job_data\n"
        "drawn = []; sys.stdin.readline()\n"
        "spec = DataSpec(categories=('voc_part/cat',), train_per_category=36, test_per_category=2)\n"
        f"data = load_job_data(spec, EvaluationSpec(), input_size={SIZE}, seed=0, "
        f"cache_dir=Path({str(tmp_path)!r}), data_root=None, on_progress=drawn.append)\n"
        "print(len(drawn), zlib.crc32(data.train.take(range(72)).tobytes()))"
    )
    pipe = subprocess.PIPE
    children = [subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for child in children:  # both have imported everything and start together
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    drawn, sums = zip(*(child.communicate(timeout=120)[0].split() for child in children), strict=True)
    assert [child.returncode for child in children] == [0, 0]
    sets = [path for path in (tmp_path / FOLDER).iterdir() if path.is_dir()]
    assert sum(map(int, drawn)) == len(sets)
    assert len(set(sums)) == 1


def test_photographs_are_split_evenly_and_no_photograph_is_on_both_sides(data_root: Path, tmp_path: Path) -> None:
    data = load(PHOTOGRAPHS, tmp_path, data_root)
    positive = data.train.labels_N == 1
    assert (positive.sum(), (~positive).sum()) == (54, 54)
    assert (data.test.labels_N.sum(), len(data.test)) == (6, 12)
    photographs = [{name.split("#")[0] for name in split.names_N} for split in (data.train, data.test)]
    assert photographs[0] & photographs[1] == set()
    assert not data.generated
    assert data.measured.parts_NSS is None
    assert data.skipped == ()


def test_photograph_landmarks_are_carried_into_the_square(data_root: Path, tmp_path: Path) -> None:
    data = load(PHOTOGRAPHS, tmp_path, data_root)
    assert data.landmark_names == ("head", "neck", "torso")
    # The head lies at (15, 10) and the torso at (30, 30) of every 60 x 60 box; no neck is annotated.
    expected = [[15 * 0.8 - 0.5, 10 * 0.8 - 0.5], [np.nan, np.nan], [23.5, 23.5]]
    for landmarks_K2 in data.measured.landmarks_NK2:
        np.testing.assert_allclose(landmarks_K2, expected, rtol=1e-6)


def test_caps_take_fewer_photographs(data_root: Path, tmp_path: Path) -> None:
    capped = PHOTOGRAPHS.model_copy(update={"train_per_category": 10, "test_per_category": 4})
    data = load(capped, tmp_path, data_root)
    assert (data.train.labels_N.tolist(), data.test.labels_N.tolist()) == ([1] * 10 + [0] * 10, [1] * 4 + [0] * 4)


def test_the_official_split_is_cub_s_own(data_root: Path, tmp_path: Path) -> None:
    bird = DataSpec(categories=("cub200/bird",), images="photographs", split="official")
    data = load(bird, tmp_path, data_root)
    numbers = [
        int(name.split("_")[-1].split(".")[0])
        for name, y in zip(data.test.names_N, data.test.labels_N, strict=True)
        if y
    ]
    assert numbers == list(range(2, 53, 2))
    assert np.isnan(data.measured.landmarks_NK2[2, 2]).all()  # the sixth bird hides its tail
    assert data.landmark_names == ("forehead", "back", "tail")


@pytest.mark.parametrize(("flag", "use"), [("1", "test on"), ("0", "train on")])
def test_a_split_that_leaves_a_side_empty_is_refused(data_root: Path, tmp_path: Path, flag: str, use: str) -> None:
    table = next(data_root.rglob("train_test_split.txt"))
    table.write_text("".join(f"{line.split()[0]} {flag}\n" for line in table.read_text().splitlines()))
    bird = DataSpec(categories=("cub200/bird",), images="photographs", split="official", negatives="folder")
    with pytest.raises(DataError, match=f"leaves no images of cub200/bird.* to {use}"):
        load(bird, tmp_path, data_root)


def test_a_seeded_split_is_drawn_and_the_job_s_own_seed_leaves_it_alone(data_root: Path, tmp_path: Path) -> None:
    seeded = PHOTOGRAPHS.model_copy(update={"split": "seeded", "split_seed": 1})
    other = seeded.model_copy(update={"split_seed": 2})
    tested = [load(data, tmp_path, data_root).measured.names_N for data in (PHOTOGRAPHS, seeded, other)]
    assert len(set(tested)) == 3
    assert {len(names) for names in tested} == {6}
    assert load(seeded, tmp_path, data_root, seed=5).measured.names_N == tested[1]


def test_negatives_from_a_folder(data_root: Path, tmp_path: Path) -> None:
    data = load(PHOTOGRAPHS.model_copy(update={"negatives": "folder"}), tmp_path, data_root)
    assert data.category_names == ("voc_part/cat", "negatives")
    assert (data.train.labels_N == 0).sum() == 45
    assert (data.test.labels_N == 0).sum() == 5


def test_an_unreadable_photograph_is_skipped_and_named(data_root: Path, tmp_path: Path) -> None:
    (data_root / "voc_part/VOCdevkit/VOC2010/JPEGImages/2008_010004.jpg").write_bytes(b"")
    data = load(PHOTOGRAPHS, tmp_path, data_root, split="all")
    assert data.skipped == ("2008_010004.jpg#1", "2008_010004.jpg#2")
    assert len(data.measured) == 58
    assert not any("2008_010004" in name for name in data.train.names_N + data.test.names_N)


def test_data_that_changed_since_planning_are_refused(data_root: Path, tmp_path: Path) -> None:
    planned = PHOTOGRAPHS.model_copy(update={"digest": load(PHOTOGRAPHS, tmp_path, data_root).digest})
    assert len(load(planned, tmp_path, data_root).train) == 108
    (data_root / "voc_part/VOCdevkit/VOC2010/JPEGImages/2008_010004.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="changed since the sweep was planned"):
        load(planned, tmp_path, data_root)


def show_a_cow_beside_every_cat(root: Path) -> None:
    cats, cows = (root / f"voc_part/truth/{key}.csv" for key in ("cat", "cow"))
    cows.write_text(cows.read_text() + "".join(cats.read_text().splitlines(keepends=True)[1:]))


def test_a_photograph_that_shows_the_category_gives_no_negative(data_root: Path, tmp_path: Path) -> None:
    show_a_cow_beside_every_cat(data_root)
    data = load(PHOTOGRAPHS, tmp_path, data_root)
    for split in (data.train, data.test):
        photographs: dict[int, set[str]] = {0: set(), 1: set()}
        for name, label in zip(split.names_N, split.labels_N, strict=True):
            photographs[int(label)].add(name.split("#")[0])
        assert photographs[0] & photographs[1] == set()
        assert any(name.startswith("2008_02") for name in photographs[0])  # cows by themselves


def test_no_photograph_of_two_categories_is_on_both_sides(data_root: Path, tmp_path: Path) -> None:
    show_a_cow_beside_every_cat(data_root)
    both = PHOTOGRAPHS.model_copy(update={"categories": ("voc_part/cat", "voc_part/cow")})
    data = load(both, tmp_path, data_root, split="all")
    photographs = [{name.split("#")[0] for name in split.names_N} for split in (data.train, data.test)]
    assert photographs[0] & photographs[1] == set()
    assert len(data.measured) == 60 + 56 + 60


def test_crops_of_an_older_recipe_are_not_taken_for_new_ones(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(PHOTOGRAPHS, tmp_path, data_root)
    monkeypatch.setattr(photographs, "RECIPE_VERSION", RECIPE_VERSION + 1)
    monkeypatch.setattr(
        photographs, "crop", lambda *_: (np.full((SIZE, SIZE, 3), 7, np.uint8), np.full((3, 2), np.nan))
    )
    after = load(PHOTOGRAPHS, tmp_path, data_root)
    assert (after.train.take([0]) == 7).all()
    assert not (before.train.take([0]) == 7).all()
