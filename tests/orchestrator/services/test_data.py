"""`orch data`: what is there is counted, opened, prepared once for all jobs, and drawn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.cli import data_progress
from orchestrator.cli.main import main
from orchestrator.services import data as service
from orchestrator.settings import Settings
from schemas.errors import DataError, Interrupted
from schemas.job import DataSpec, EvaluationSpec

SIZE = 48
VISIBLE_BIRDS = 20


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty birds in CUB's layout, and fifty photographs of nothing."""
    root = tmp_path_factory.mktemp("photographs")
    folder = root / "CUB_200_2011"
    (folder / "parts").mkdir(parents=True)
    (folder / "images").mkdir()
    (root / "neg").mkdir()
    rng = np.random.default_rng(0)
    for path in [*(folder / f"images/{i}.jpg" for i in range(1, 61)), *(root / f"neg/{i}.jpg" for i in range(50))]:
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((80, 80)).save(path)
    ids = range(1, 61)
    write = {
        "images.txt": [f"{i} {i}.jpg" for i in ids],
        "bounding_boxes.txt": [f"{i} 0.0 0.0 80.0 80.0" for i in ids],
        "train_test_split.txt": [f"{i} {i % 2}" for i in ids],
        "parts/parts.txt": ["1 back", "6 forehead", "14 tail"],
        "parts/part_locs.txt": [f"{i} 1 40.0 20.0 {int(i <= VISIBLE_BIRDS)}" for i in ids],
    }
    for name, lines in write.items():
        (folder / name).write_text("\n".join(lines))
    return root


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ORCH_DATA_ROOT", raising=False)
    monkeypatch.delenv("ORCH_OBJECT_STORE", raising=False)
    return Settings()


def ignore(what: str, done: int, total: int) -> None: ...


def run(*typed: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(typed))
    return int(ended.value.code or 0)


def test_what_is_there_is_counted_and_what_is_not_is_named(
    settings: Settings, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "list", "--data-root", str(photographs)) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "cub-bird 60 60 0 forehead 0, back 20, tail 0 0" in text
    assert (
        "voc_part: not here. Looked for: voc_part/VOCdevkit/VOC2010/{JPEGImages/*.jpg, Annotations_Part/*.mat}" in text
    )
    assert f"negatives: 50 photographs in {photographs / 'neg'}" in text
    assert run("data", "list", "--data-root", str(photographs), "--json") == 0
    (bird,) = json.loads(capsys.readouterr().out)["datasets"][2]["categories"]
    assert (bird["objects"], bird["landmarks"]["back"]) == (60, VISIBLE_BIRDS)
    assert not settings.root.exists()  # looking makes no folders


@pytest.mark.parametrize("file", ["truth/giraffe.csv", "voc_part/truth/cat.CSV", "annotations/n02444819.csv"])
def test_a_root_without_anything_usable_names_what_looks_like_annotations(
    file: str, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / file).parent.mkdir(parents=True)
    (tmp_path / "data" / file).write_text("image,object_id\n")
    (tmp_path / "data/VOCdevkit/VOC2010/JPEGImages").mkdir(parents=True)
    assert run("data", "list", "--data-root", str(tmp_path / "data")) == DataError.exit_code
    shown = capsys.readouterr()
    assert f"not used: {tmp_path / 'data' / file}" in " ".join(shown.out.split())
    assert f"these annotations belong to no category with photographs: {file}" in shown.err


def test_an_empty_root_is_listed_and_refused(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "list", "--data-root", str(tmp_path), "--json") == DataError.exit_code
    shown = capsys.readouterr()
    assert json.loads(shown.out)["unused"] == []
    assert f"Nothing under {tmp_path} can be used." in shown.err


def test_names_that_are_not_utf8_reach_every_output(
    settings: Settings, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    subprocess.run(["cp", "-r", photographs, root], check=True)
    (root / "neg/0.jpg").rename(root / os.fsdecode(b"neg/\xe9.jpg"))
    (root / os.fsdecode(b"neg/\xe9.jpg")).write_bytes(b"")
    for command, code in {"list": 0, "verify": 3, "prepare": 0}.items():
        for option in ([], ["--json"]):
            size = ["--size", "48"] if command == "prepare" else []
            assert run("data", command, "--data-root", str(root), *size, *option) == code
            shown = capsys.readouterr()
            assert (r"caf\xe9" in shown.out or r"\xe9.jpg" in shown.out) or json.loads(shown.out)
            (shown.out + shown.err).encode()


def test_preparing_refuses_a_box_outside_its_photograph_by_file_and_line(
    settings: Settings, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    subprocess.run(["cp", "-r", photographs, root], check=True)
    boxes = root / "CUB_200_2011/bounding_boxes.txt"
    boxes.write_text(boxes.read_text().replace("\n7 0.0 0.0", "\n7 200.0 0.0"))
    for command in (["verify"], ["prepare", "--size", "48"]):
        assert run("data", *command, "--data-root", str(root)) == DataError.exit_code
        shown = capsys.readouterr()
        assert f"see {boxes}, line 7" in " ".join((shown.out + shown.err).split())


def test_without_a_data_root_the_generated_animals_are_listed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["images"], len(listed["categories"])) == ("generated", 37)
    assert run("data", "list") == 0
    assert "voc-cat head, neck, torso head, torso, frontal_legs, back_legs, tail" in " ".join(
        capsys.readouterr().out.split()
    )


def test_broken_files_end_with_the_code_for_bad_data(
    settings: Settings, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "verify", "--data-root", str(photographs)) == 0
    spoiled = tmp_path / "spoiled"
    subprocess.run(["cp", "-r", str(photographs), str(spoiled)], check=True)
    (spoiled / "CUB_200_2011/images/7.jpg").unlink()
    (spoiled / "neg/3.jpg").write_bytes(b"")
    capsys.readouterr()
    assert run("data", "verify", "--data-root", str(spoiled)) == DataError.exit_code
    shown = capsys.readouterr()
    assert f"{spoiled}/CUB_200_2011/images/7.jpg: missing" in shown.out
    assert f"{spoiled}/neg/3.jpg: empty (0 bytes)" in shown.out
    assert "error: 2 files cannot be used: restore them" in shown.err
    assert run("data", "verify", "--data-root", str(spoiled), "--json") == DataError.exit_code
    bird, negatives = (found := json.loads(capsys.readouterr().out))["categories"]
    assert not found["is_sound"]
    assert bird["flaws"] == [{"file": f"{spoiled}/CUB_200_2011/images/7.jpg", "why": "missing"}]
    assert len(negatives["flaws"]) == 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["prepare"], "no data root is given"),
        (["verify"], "no data root is given"),
        (["list", "--data-root", "/no/such/folder"], "is not a folder"),
        (["prepare", "--category", "cow", "--data-root", "{root}"], "None of voc_part/cow is under"),
        (["show", "--category", "cow", "--data-root", "{root}"], "`orch data list` shows what has"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(
    settings: Settings, photographs: Path, typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", *(word.format(root=photographs) for word in typed)) == DataError.exit_code
    assert said in capsys.readouterr().err


def test_a_profile_says_which_sizes_its_networks_take() -> None:
    assert 224 in service.sizes_of("paper")
    assert {128, 96} <= set(service.sizes_of("laptop"))


def sets(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.cache_dir / "image-sets").iterdir() if path.is_dir())


def test_jobs_take_what_was_prepared(settings: Settings, photographs: Path) -> None:
    from workers.data.dataset import load_job_data

    heard: list[tuple[str, int, int]] = []
    bird, negatives = service.prepare_data(settings, photographs, (), [SIZE], lambda *said: heard.append(said))
    assert (bird.category, bird.pictures, bird.skipped, negatives.pictures) == ("cub200/bird", 60, (), 50)
    assert heard[-1] == (f"negatives {SIZE} px", 50, 50)
    prepared = sets(settings)
    data = DataSpec(categories=("cub200/bird",), images="photographs", negatives="folder")
    loaded = load_job_data(
        data, EvaluationSpec(), input_size=SIZE, seed=0, cache_dir=settings.cache_dir, data_root=photographs
    )
    assert len(loaded.train) + len(loaded.test) == 110
    assert sets(settings) == prepared
    heard.clear()
    service.prepare_data(settings, photographs, (), [SIZE], lambda *said: heard.append(said))
    assert {done for _, done, _ in heard} == {0}  # nothing is done twice


def test_an_interruption_keeps_what_is_done(settings: Settings, photographs: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if "negatives" in what:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="repeat the command to continue"):
        service.prepare_data(settings, photographs, (), [SIZE], stop)
    assert [name for name in sets(settings) if name.startswith("cub200-bird")]


@pytest.mark.slow
def test_two_preparations_at_once_survive_that_one_is_killed(settings: Settings, photographs: Path) -> None:
    typed = [
        sys.executable,
        "-m",
        "orchestrator.cli.main",
        "data",
        "prepare",
        "--data-root",
        str(photographs),
        "--size",
        "400",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(typed, **quiet) as first, subprocess.Popen(typed, **quiet) as second:  # type: ignore[call-overload]
        partial = settings.cache_dir / "image-sets"
        while first.poll() is None and not list(partial.glob(".cub200*.partial/images.npy")):
            time.sleep(0.005)  # the file is the event
        os.kill(first.pid, signal.SIGKILL)
        assert second.wait(timeout=120) == 0
    assert len(sets(settings)) == 2
    bird, _ = service.prepare_data(settings, photographs, (), [400], ignore)
    assert bird.pictures == 60


def test_a_sheet_is_drawn_of_either_kind(
    settings: Settings, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn, taken = tmp_path / "drawn.png", tmp_path / "taken.png"
    assert run("data", "show", "--category", "cub-bird", "--out", str(drawn), "--per-category", "2") == 0
    assert run("data", "show", "--data-root", str(photographs), "--out", str(taken), "--per-category", "2") == 0
    assert capsys.readouterr().out.split("\n")[:2] == [f"{drawn} (generated animals)", f"{taken} (photographs)"]
    with Image.open(drawn) as one, Image.open(taken) as other:
        assert one.size == other.size


def test_elsewhere_than_on_a_terminal_each_category_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with data_progress.progress() as advance:
        for done in range(1, 4):
            advance("voc_part/cat", done, 3)
    assert capsys.readouterr().err == "voc_part/cat: 3 of 3\n"


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(str(ended.value.code))


@pytest.fixture
def shared_settings(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ORCH_OBJECT_STORE", (tmp_path / "store").as_uri())
    return Settings()


def test_push_sends_once_and_status_shows_it(
    shared_settings: Settings, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["data", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["datasets"] == []
    push = ["data", "push", "cub", "--data-root", str(photographs), "--size", "48", "--json"]
    sent = []
    for _ in range(2):
        assert exit_code(push) == 0
        (one,) = json.loads(capsys.readouterr().out)
        sent.append(one["sent"])
        assert (one["dataset"], one["categories"], one["objects"]) == ("cub200", ["cub200/bird", "negatives"], 110)
    assert sent == [one["bytes"], 0]
    assert exit_code(push[:-1]) == 0
    assert "nothing to send" in capsys.readouterr().out
    assert exit_code(["data", "status", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["datasets"]
    assert shown["objects"] == {"cub200/bird": 60, "negatives": 50}
    assert shown["sizes"] == {"48": one["bytes"]}


def test_push_says_what_is_missing(
    settings: Settings, photographs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exit_code(["data", "push", "cub", "--data-root", str(photographs)]) == 2
    assert "ORCH_OBJECT_STORE" in capsys.readouterr().err
    monkeypatch.setenv("ORCH_OBJECT_STORE", (settings.root / "store").as_uri())
    assert exit_code(["data", "push", "voc", "--data-root", str(photographs)]) == 3
    assert "has no voc_part" in capsys.readouterr().err


def test_a_sweep_is_planned_alike_without_the_photographs(
    shared_settings: Settings, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["plan", "--grid", "cub200", "--backbone", "alexnet", "--set", "data.images=photographs", "--json"]
    plan += ["--set", "weights.source=random", "--set", "data.negatives=folder", "--set", "model.input_size=64"]
    assert exit_code([*plan, "--data-root", str(photographs)]) == 0
    here = json.loads(capsys.readouterr().out)
    assert exit_code(plan) == 0
    unseen = json.loads(capsys.readouterr().out)
    assert (unseen["data_seen"], unseen["unmeasurable"]) == (False, {})  # nothing is pushed yet
    service.push_data(shared_settings, photographs, ["cub200"], [64], ignore)
    assert exit_code(plan) == 0
    there = json.loads(capsys.readouterr().out)
    assert [job["key"] for job in there["jobs"]] == [job["key"] for job in here["jobs"]]
    assert there["unmeasurable"] == here["unmeasurable"] == {"part_interpretability": ["cub200/bird"]}
    assert exit_code([*(word for word in plan if word != "--json"), "--data-root", str(photographs)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "values of the paper's tables: 5 (2 of 8), 7 (2 of 40)" in said
    assert "no part interpretability, because there are no part masks of all objects: cub200/bird" in said
    assert exit_code([*plan[:-1], "model.input_size=96", "--data-root", str(photographs / "nowhere")]) == 3
    assert "orch data push cub200 --size 96" in capsys.readouterr().err
