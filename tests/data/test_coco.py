"""COCO instances, and folders of images."""

import json
from pathlib import Path
from typing import Any

import pytest

from lopsided.data import readers
from lopsided.data.dataset import Dataset
from lopsided.data.formats import coco, image_folder
from lopsided.data.image_files import ImageFiles
from lopsided.data.readers import ReadOptions
from lopsided.data.storage import UserError

INSTANCES: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 3, "file_name": "3.jpg"}, {"id": 9, "file_name": "9.jpg"}],
    "annotations": [
        {"image_id": 9, "category_id": 18, "iscrowd": 0},
        {"image_id": 7, "category_id": 18, "iscrowd": 0},
        {"image_id": 7, "category_id": 1, "iscrowd": 1},
        {"image_id": 7, "category_id": 18, "iscrowd": 0},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 5, "name": "airplane"}],
}


def write(folder: Path, content: Any, images: str = "") -> Path:
    for image in INSTANCES["images"]:
        path = folder / images / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (folder / "annotations").mkdir(exist_ok=True)
    path = folder / "annotations/instances_train2017.json"
    path.write_text(json.dumps(content))
    return path


def labels(data: Dataset) -> list[list[str]]:
    crow, col = data.targets.crow.tolist(), data.targets.col.tolist()
    return [[data.label_names[column] for column in col[crow[row] : crow[row + 1]]] for row in range(len(data))]


@pytest.mark.parametrize("images", ["annotations", "annotations/images", "train2017", "images/train2017", "images", ""])
def test_images_have_the_categories_of_their_annotations(tmp_path: Path, images: str) -> None:
    data = readers.read(write(tmp_path, INSTANCES, images))
    assert data.inputs == ImageFiles(tmp_path / images, ("7.jpg", "3.jpg", "9.jpg"))
    assert list(data.label_names) == ["person", "airplane", "dog"], "in the order of their numbers"
    assert labels(data) == [["person", "dog"], [], ["dog"]]
    assert data.notes == (f"inputs: 3 images in {tmp_path / images}",)


def test_where_the_images_lie_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, INSTANCES, "elsewhere")
    with pytest.raises(UserError, match=r"no file .*7\.jpg' nor 2 others of 3; say where they are with --image-folder"):
        readers.read(path)
    assert len(readers.read(path, ReadOptions(image_folder=tmp_path / "elsewhere"))) == 3


def test_images_to_predict_need_no_annotations(tmp_path: Path) -> None:
    blocks = list(readers.read_inputs(write(tmp_path, {"images": INSTANCES["images"]}, "train2017")))
    assert blocks == [ImageFiles(tmp_path / "train2017", ("7.jpg", "3.jpg", "9.jpg"))]


BAD_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "no images": ({"images": []}, ": no images"),
    "images are no list": ({"images": 5}, "expected a list 'images' as in .*, got '5'"),
    "an image without a file": ({"images": [{"id": 7}]}, "expected 'file_name' of each image, got"),
    "an image twice": ({"images": INSTANCES["images"][:1] * 2}, "two images have the same id"),
    "no categories": ({"categories": None}, "expected a list 'categories'"),
    "a name twice": (
        {"categories": [{"id": 1, "name": "a"}, {"id": 18, "name": "a"}]},
        "two categories have the name",
    ),
    "another category": (
        {"categories": [{"id": 1, "name": "a"}]},
        "an annotation of an image or category",
    ),
    "no number": ({"annotations": [{"image_id": [7], "category_id": 1}]}, "an annotation of an image or category"),
    "another image": (
        {"annotations": [{"image_id": 1, "category_id": 1}]},
        "an annotation of an image or category",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str) -> None:
    change, message = BAD_FILES[name]
    path = write(tmp_path, INSTANCES | change, "train2017")
    with pytest.raises(UserError, match=message) as caught:
        coco.read(path, ReadOptions())
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def make_folder(folder: Path, listed: str | None) -> Path:
    for name in ("b/1.png", "a.JPG", "notes.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    if listed is not None:
        (folder / "metadata.csv").write_text(listed)
    return folder


def test_a_folder_of_images_with_a_list(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, 'file_name,labels\nb/1.png,"cat,dog"\na.JPG,dog\n')
    data = readers.read(folder)
    assert data.inputs == ImageFiles(folder, ("b/1.png", "a.JPG"))
    assert labels(data) == [["cat", "dog"], ["dog"]]
    assert data.notes[0] == "the images are those that metadata.csv lists"
    (folder / "more.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"several lists of images; give one: .*metadata\.csv, .*more\.jsonl"):
        readers.read(folder)


def test_a_folder_of_images_to_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "BLOCK_ROWS", 1)
    folder = make_folder(tmp_path, None)
    blocks = list(readers.read_inputs(folder))
    assert blocks == [ImageFiles(folder, ("a.JPG",)), ImageFiles(folder, ("b/1.png",))]
    with pytest.raises(UserError, match="no column 'labels'"):
        readers.read(folder)
