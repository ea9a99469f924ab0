"""Tiny data sets in the published on-disk formats, made here because no photograph may live in the repository."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

VOC_COLUMNS = (
    "image", "object_id", "xmin", "ymin", "xmax", "ymax", "part", "part_instance",
    "part_y", "part_x", "part_h", "part_w", "width", "height",
)  # fmt: skip
OBJECTS_PER_IMAGE = 2


def write_photograph(path: Path, width: int, height: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, size=(height // 10, width // 10, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((width, height)).save(path, quality=90)


def write_voc_table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, VOC_COLUMNS, restval=0)
        table.writeheader()
        table.writerows(rows)


def write_voc_category(root: Path, key: str, images: int, seed: int) -> None:
    """Photographs of 120 x 60 with two objects of 60 x 60 side by side: a head in one corner, a torso in the middle."""
    folder = root / "voc_part"
    rows: list[dict[str, object]] = []
    for number in range(images):
        name = f"2008_{seed:02d}{number:04d}.jpg"
        write_photograph(folder / "VOCdevkit/VOC2010/JPEGImages" / name, 120, 60, 1000 * seed + number)
        for side in range(OBJECTS_PER_IMAGE):
            left = 60 * side
            box = {"xmin": left + 1, "xmax": left + 60, "ymin": 1, "ymax": 60, "width": 120, "height": 60}
            shared = {"image": name, "object_id": side + 1, **box}
            rows.append({**shared, "part": 1, "part_y": 15.5, "part_x": left + 10.5})
            rows.append({**shared, "part": 3, "part_y": 30.5, "part_x": left + 30.5})
    write_voc_table(folder / f"truth/{key}.csv", rows)


def write_cub(root: Path, images: int) -> Path:
    """CUB-200-2011's text files; every second bird is in the training split, and no third one shows its tail."""
    folder = root / "CUB_200_2011"
    lines: dict[str, list[str]] = {name: [] for name in ("images", "boxes", "split", "locs")}
    for i in range(1, images + 1):
        name = f"001.Black_footed_Albatross/Black_Footed_Albatross_{i:04d}.jpg"
        write_photograph(folder / "images" / name, 100, 80, 50_000 + i)
        lines["images"].append(f"{i} {name}")
        lines["boxes"].append(f"{i} 20.0 10.0 60.0 60.0")
        lines["split"].append(f"{i} {i % 2}")
        lines["locs"] += [f"{i} 1 50.0 40.0 1", f"{i} 6 35.0 25.0 1", f"{i} 14 65.0 55.0 {int(i % 3 > 0)}"]
        lines["locs"].append(f"{i} 2 33.0 22.0 1")
    (folder / "parts").mkdir(parents=True)
    (folder / "images.txt").write_text("\n".join(lines["images"]))
    (folder / "bounding_boxes.txt").write_text("\n".join(lines["boxes"]))
    (folder / "train_test_split.txt").write_text("\n".join(lines["split"]))
    (folder / "parts/part_locs.txt").write_text("\n".join(lines["locs"]))
    (folder / "parts/parts.txt").write_text("1 back\n2 beak\n6 forehead\n14 tail\n15 throat\n")
    return folder


def write_part_masks(
    path: Path, height: int, width: int, objects: Sequence[tuple[str, Mapping[str, Sequence[int]]]]
) -> None:
    """One `Annotations_Part` file: a box (top, left, bottom, right) for every part, and the object around them."""
    listed = np.zeros((1, len(objects)), [(name, object) for name in ("class", "class_ind", "mask", "parts")])
    for number, (key, parts) in enumerate(objects):
        silhouette = np.zeros((height, width), np.uint8)
        named = np.zeros((1, len(parts)) if parts else (0, 0), [("part_name", object), ("mask", object)])
        for k, (name, (top, left, bottom, right)) in enumerate(parts.items()):
            mask = np.zeros((height, width), np.uint8)
            mask[top:bottom, left:right] = 1
            silhouette |= mask
            named[0, k] = (name, mask)
        listed[0, number] = (key, 8, silhouette, named if parts else np.zeros((0, 0)))
    savemat(path, {"anno": {"imname": path.stem, "objects": listed}}, do_compression=True)
