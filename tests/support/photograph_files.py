"""Writes tiny data sets in the published on-disk formats; the repository holds no photographs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

VOC_COLUMNS = (
    "image", "object_id", "xmin", "ymin", "xmax", "ymax", "part", "part_instance",
    "part_y", "part_x", "part_h", "part_w", "width", "height",
)  # fmt: skip
ILSVRC_COLUMNS = VOC_COLUMNS[:-2]
OBJECTS_PER_IMAGE = 2


def write_photograph(path: Path, width: int, height: int, seed: int) -> None:
    """Write smooth noise as a photograph, in the format of the file name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, size=(height // 10, width // 10, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((width, height)).save(path, quality=90)


def write_voc_table(path: Path, rows: list[dict[str, object]]) -> None:
    """Write a table of Pascal VOC Part."""
    write_table(path, VOC_COLUMNS, rows)


def write_table(path: Path, columns: Sequence[str], rows: list[dict[str, object]]) -> None:
    """Write a table; a value that is not given is 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval=0)
        table.writeheader()
        table.writerows(rows)


def write_ilsvrc_category(root: Path, key: str, images: int, seed: int) -> None:
    """Write the authors' layout: photographs of 100 x 80, each with one object of 60 x 60, its head in the middle."""
    folder = root / "ilsvrc_animal_part"
    rows: list[dict[str, object]] = []
    for number in range(1, images + 1):
        write_photograph(folder / f"{key}_obj/img/img/{number:05d}.jpg", 100, 80, 1000 * seed + number)
        corners = {"xmin": 20, "ymin": 10, "xmax": 79, "ymax": 69}
        shared = {"image": f"{key}_{7 * number}.JPEG", "object_id": number, **corners}
        rows.append({**shared, "part": 1, "part_y": 10 + 0.5 * 59, "part_x": 20 + 0.5 * 59})
    write_table(folder / f"annotations/{key}.csv", ILSVRC_COLUMNS, rows)


def write_truth_v5(path: Path, elements: Sequence[Mapping[str, object]]) -> None:
    """Write the authors' `truth_partNN.mat`; an element without `centres` is an object without a marked part."""
    struct = [(name, object) for name in ("pHW_center", "pHW_scale", "obj")]
    truth = np.zeros((1, len(elements)), struct)
    for i, element in enumerate(elements):
        centres = np.asarray(element.get("centres", np.empty((0, 0))))
        truth[0, i] = (centres, centres, _objects_v5(element, centres.shape[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"truth": truth})


def _objects_v5(element: Mapping[str, object], count: int) -> object:
    if not count:
        return np.empty((0, 0))
    found = np.zeros((1, count), [(name, object) for name in ("folder", "filename", "name", "bndbox", "ID")])
    for j in range(count):
        found[0, j] = (".", element["filename"], "x", element["bndbox"], element["ID"])
    return found


def write_truth_v73(path: Path, elements: Sequence[Mapping[str, object]]) -> None:
    """Write the same in MATLAB 7.3's format: HDF5 after a header, columns of references, transposed matrices."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        columns: dict[str, list[object]] = {"pHW_center": [], "pHW_scale": [], "obj": []}
        for i, element in enumerate(elements):
            group = file.create_group(f"#refs#/{i}")
            centres = np.asarray(element.get("centres", np.empty((0, 0))), dtype=np.float64)
            values = {name: _matrix_v73(group, name, centres) for name in ("pHW_center", "pHW_scale")}
            values["obj"] = _objects_v73(group, element, centres.shape[1])
            for name, value in values.items():
                columns[name].append(value.ref)
        for name, refs in columns.items():
            file.create_dataset(f"truth/{name}", data=np.array(refs, dtype=h5py.ref_dtype)[:, None])
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + bytes([0, 2]) + b"IM")


def _objects_v73(group: Any, element: Mapping[str, object], count: int) -> Any:
    import h5py

    if not count:
        return _matrix_v73(group, "obj", np.empty((0, 0)))
    each = [group.create_group(f"obj{j}") for j in range(count)]
    for one in each:
        bndbox = one.create_group("bndbox")
        for name, corner in dict(element["bndbox"]).items():  # type: ignore[call-overload]
            _text_v73(bndbox, name, str(corner))
        _text_v73(one, "filename", str(element["filename"]))
        _matrix_v73(one, "ID", np.array([[float(str(element["ID"]))]]))
    if count == 1:
        return each[0]
    array = group.create_group("obj")
    for name in each[0]:
        array.create_dataset(name, data=np.array([one[name].ref for one in each], dtype=h5py.ref_dtype)[:, None])
    return array


def _matrix_v73(group: Any, name: str, matrix: NDArray[np.float64]) -> Any:
    found = group.create_dataset(name, data=matrix.T if matrix.size else np.zeros(2, np.uint64))
    found.attrs["MATLAB_class"] = np.bytes_("double")
    if not matrix.size:
        found.attrs["MATLAB_empty"] = np.uint8(1)
    return found


def _text_v73(group: Any, name: str, text: str) -> None:
    found = group.create_dataset(name, data=np.array([[ord(letter)] for letter in text], np.uint16))
    found.attrs["MATLAB_class"] = np.bytes_("char")


def write_voc_category(root: Path, key: str, images: int, seed: int) -> None:
    """Write photographs of 120 x 60 with two objects of 60 x 60, each with a head in a corner and a central torso."""
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
    """Write CUB-200-2011's files; every second bird is in the training split, and every third one hides its tail."""
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
    """Write one `Annotations_Part` file: a box (top, left, bottom, right) per part, and the object around them."""
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
