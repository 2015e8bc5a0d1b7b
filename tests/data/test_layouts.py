"""Laws of what is read where: splits, classes and tables as people have them, and what is told of the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import channels_last, encoded, picture, write_folder, write_parquet

from mvnas.data import Data, load
from mvnas.data._splits import split_of
from mvnas.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "mvnas"


def splits(*names: str, each: int = 2) -> dict[str, int]:
    """The layout of class folders cat and dog in each of some folders."""
    return {f"{name}/{kind}": each for name in names for kind in ("cat", "dog")}


def counts(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.val), len(data.test)


# --- folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("training_set", "train"),
        ("seg_train", "train"),
        ("trainset", "train"),
        ("TRAIN", "train"),
        ("train2017", "train"),
        ("TrainImages", "train"),
        ("GTSRB_Final_Training", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("Validation Set", "val"),
        ("dev", "val"),
        ("eval", "val"),
        ("seg-test", "test"),
        ("Testing", "test"),
        ("test_set", "test"),
        ("valley", None),
        ("trainers", None),
        ("contest", None),
        ("device", None),
        ("train_test", None),
        ("cat", None),
        ("", None),
    ],
)
def test_a_split_is_told_by_a_word_of_a_name(name: str, kind: str | None) -> None:
    assert (split_of(name) or [None])[0] == kind


@pytest.mark.parametrize(
    ("train", "other", "purpose"),
    [
        ("Training", "Testing", "test"),
        ("training_set", "test_set", "test"),
        ("seg_train", "seg_test", "test"),
        ("train", "dev", "validate"),
        ("train", "eval", "validate"),
        ("train2017", "val2017", "validate"),
        ("training_set/training_set", "test_set/test_set", "test"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
    ],
)
def test_splits_by_any_usual_name_are_read_as_such_and_told(
    tmp_path: Path, train: str, other: str, purpose: str
) -> None:
    data = load(str(write_folder(tmp_path, splits(train, each=10) | splits(other, each=2))))
    assert data.classes == ("cat", "dog")
    assert counts(data) == ((18, 4, 2) if purpose == "validate" else (16, 4, 4))
    assert data.note.startswith(f"took {train}/ to train, {other}/ to {purpose}; no ")


def test_of_several_that_could_validate_or_test_one_is_taken_and_the_others_are_told(tmp_path: Path) -> None:
    layout = splits("train") | splits("testing", "test", "eval", "valid", "dev", each=1) | {"unlabelled": 2}
    data = load(str(write_folder(tmp_path, layout)))
    assert counts(data) == (4, 2, 2)
    assert "took train/ to train, valid/ to validate, test/ to test" in data.note
    assert "dev/, eval/ (another validates), testing/ (another tests), unlabelled/ (no split)" in data.note


@pytest.mark.parametrize(
    ("layout", "why"),
    [(splits("train", each=5) | {"test": 3}, "test/ (its images are in no class folders)"),
     (splits("train", each=5) | {"test/unknown": 3}, "test/ (its folders, unknown, are no classes in training)"),
     ({"cat": 5, "dog": 5, "test": 3}, "test/ (its images are in no class folders)")],
)  # fmt: skip
def test_a_flat_test_folder_is_no_class_and_no_test(tmp_path: Path, layout: dict[str, int], why: str) -> None:
    data = load(str(write_folder(tmp_path, layout)))
    assert (data.classes, counts(data)) == (("cat", "dog"), (6, 2, 2))
    assert f"left out: {why}" in data.note


def test_a_split_beside_class_folders_is_theirs(tmp_path: Path) -> None:
    data = load(str(write_folder(tmp_path, {"cat": 2, "dog": 2} | splits("test", each=1))))
    assert (data.classes, counts(data)) == (("cat", "dog"), (2, 2, 2))
    assert "took the other folders to train, test/ to test" in data.note


def test_what_speaks_of_a_split_may_be_a_class_or_is_asked_about(tmp_path: Path) -> None:
    write_folder(tmp_path / "1", {"airport": 2, "train_station/old": 2, "train_station/new": 1})
    assert load(str(tmp_path / "1")).classes == ("airport", "train_station")
    write_folder(tmp_path / "2", {"bus/red": 2, "train/red": 2})
    with pytest.raises(DataError, match="train/ may be a split or a class beside bus; give .*/train if it is a split"):
        load(str(tmp_path / "2"))


def test_a_folder_too_high_is_entered_and_one_too_low_says_what_is_beside_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "archive/data set", splits("train", "val"))
    write_folder(tmp_path / "archive/__MACOSX", splits("train"))
    data = load(str(tmp_path))
    assert counts(data) == (2, 4, 2)
    assert data.note.startswith(f"read from {tmp_path}/archive/data set; took train/")
    low = tmp_path / "archive/data set/train"
    assert f"beside it val is not used, but with --data {low.parent}" in load(str(low)).note
    with pytest.raises(DataError, match=f"give the folder above, {low}, if"):
        load(str(low / "cat"))


def test_cifar_and_tables_are_found_a_folder_too_high(tmp_path: Path) -> None:
    write_parquet(tmp_path / "hub/snapshot/default/train/0000.parquet", [0, 1] * 3, ["cat", "dog"])
    assert load(str(tmp_path / "hub")).classes == ("cat", "dog")


def test_what_mvnas_wrote_is_never_data(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 5, "venv/lib": 1})
    (tmp_path / "venv/pyvenv.cfg").write_text("")
    for name in ("mvnas.weights", "s.resting", "mvnas.longer", "mvnas.verified"):
        (tmp_path / name).mkdir()
    (tmp_path / "mvnas.db").write_bytes(b"?")
    (tmp_path / "mvnas.weights/0.safetensors").write_bytes(b"?")
    write_folder(tmp_path / "exported", {"shown": 2})
    (tmp_path / "exported/net.card.json").write_text("{}")
    (tmp_path / "frontier.png").write_bytes(encoded(picture(0)))
    data = load(str(tmp_path))
    assert (data.classes, counts(data)) == (("cat", "dog"), (6, 2, 2))
    assert (
        "and 2 more (written by mvnas), venv/ (a virtual environment), frontier.png (in no class folder)" in data.note
    )


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", {"more/deep": 3, "birds": 4})
    data = write_folder(tmp_path / "data", {"cat": 2, "dog": 2})
    (data / "dog/linked").symlink_to(tmp_path / "elsewhere/more")
    (data / "bird").symlink_to(tmp_path / "elsewhere/birds")
    (data / "cat/itself").symlink_to(".")
    (data / "cat/all").symlink_to(data)
    (tmp_path / "elsewhere/more/deep/back").symlink_to(tmp_path / "elsewhere/more")
    read = load(str(data))
    labels = np.concatenate([read.train.targets, read.val.targets, read.test.targets])
    assert read.classes == ("bird", "cat", "dog")
    assert np.bincount(labels).tolist() == [4, 2, 5]


def test_a_class_folder_of_other_files_is_left_out_and_one_of_other_pictures_is_not(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "dog": 2, "notes": 0, "bird": 0})
    (tmp_path / "notes/a.txt").write_text("?")
    (tmp_path / "bird/a.cr2").write_text("?")
    with pytest.raises(DataError, match=r"bird has none \(1 \.cr2\); convert them to one of JPEG, PNG"):
        load(str(tmp_path))
    (tmp_path / "bird/a.cr2").rename(tmp_path / "notes/b.txt")
    with pytest.raises(DataError, match="bird has none; add some or move it elsewhere"):
        load(str(tmp_path))
    (tmp_path / "bird").rmdir()
    assert "left out: notes/ (no images)" in load(str(tmp_path)).note


def test_a_data_set_and_a_folder_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "./digits" not in load("digits").note
    write_folder(tmp_path / "digits", {"a": 2, "b": 2})
    assert load("digits").note.endswith("the folder ./digits is another: --data ./digits")


# --- tables -----------------------------------------------------------------------------------------------


def table(rows: dict[str, Any], features: dict[str, Any] | None = None) -> pa.Table:
    made = pa.table(rows)
    if features:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return made


def structs(contents: list[bytes | None], paths: list[str | None]) -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": c, "path": p} for c, p in zip(contents, paths, strict=True)], kind)


def pictures(count: int) -> list[bytes]:
    return [encoded(picture(i)) for i in range(count)]


@pytest.mark.parametrize("val", ["validation", "dev"])
def test_tables_in_folders_of_their_splits(tmp_path: Path, val: str) -> None:
    write_parquet(tmp_path / "plain_text/train/0000.parquet", [1, 0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "plain_text" / val / "0000.parquet", [0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "plain_text/test/0000.parquet", [1, 0], ["cat", "dog"])
    for other in ("extra", "testing"):
        write_parquet(tmp_path / f"plain_text/{other}/0000.parquet", [0, 1], ["cat", "dog"])
    data = load(str(tmp_path / "plain_text"))
    assert [split.targets.tolist() for split in (data.train, data.val, data.test)] == [[1, 0, 1], [0, 1], [1, 0]]
    assert data.note == (
        f"took train/0000.parquet to train, {val}/0000.parquet to validate, test/0000.parquet to test; "
        "left out: testing/0000.parquet (another is used); left out: extra/0000.parquet (no split)"
    )


def test_tables_of_several_data_sets_are_asked_about_and_those_without_a_split_all_train(tmp_path: Path) -> None:
    for name in ("cropped", "full"):
        write_parquet(tmp_path / "two" / name / "train.parquet", [0, 1])
    with pytest.raises(DataError, match="has cropped, full; give the path of one"):
        load(str(tmp_path / "two"))
    for i in range(2):
        write_parquet(tmp_path / "parts" / f"part-{i}.parquet", [i, 1 - i] * 5)
    assert counts(load(str(tmp_path / "parts"))) == (14, 4, 2)


@pytest.mark.parametrize("case", ["binary", "text", "fine", "only", "large"])
def test_columns_by_their_types_and_metadata(tmp_path: Path, case: str) -> None:
    content, names = pictures(4), {"names": ["x", "y"], "_type": "ClassLabel"}
    image = structs(content, [None] * 4)
    rows: dict[str, tuple[pa.Table, tuple[str, ...], str]] = {
        "binary": (table({"img": content, "labels": [5, 3, 5, 3]}), ("3", "5"), ""),
        "text": (table({"photo": image, "label": ["dog", "cat"] * 2, "width": [1, 2, 3, 4]}), ("cat", "dog"), ""),
        "fine": (table({"img": image, "coarse_label": [1, 0, 1, 0], "fine_label": [2, 0, 2, 0]},
                       {"coarse_label": names, "fine_label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}),
                 ("a", "b", "c"), "classes are column fine_label, not coarse_label"),
        "only": (table({"image": image, "animal": [1, 0, 1, 0]}), ("0", "1"), ""),
        "large": (table({"image": pa.array(content, pa.large_binary()), "label": [1, 0, 1, 0]}), ("0", "1"), ""),
    }  # fmt: skip
    made, classes, note = rows[case]
    pq.write_table(made, tmp_path / "x.parquet")
    if case == "fine":
        with pytest.raises(DataError, match="'b' has none"):
            load(str(tmp_path / "x.parquet"))
        made = made.set_column(2, "fine_label", pa.array([2, 0, 1, 1])).slice(0, 4)
        pq.write_table(pa.concat_tables([made, made]), tmp_path / "x.parquet")
    data = load(str(tmp_path / "x.parquet"))
    assert data.classes == classes
    assert note in data.note


def test_images_that_a_table_only_names_are_read_beside_it_and_nowhere_else(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", {"images": 4})
    names: list[str | None] = [f"images/{i:03}.png" for i in range(4)]
    pq.write_table(table({"image": structs([None] * 4, names), "label": [0, 1, 0, 1]}), data / "train.parquet")
    for split in ("val", "test"):
        pq.write_table(table({"image": names, "label": [1, 0, 1, 0]}), data / f"{split}.parquet")
    read = load(str(data))
    assert np.array_equal(channels_last(read.val.images), [picture(i) for i in range(4)])
    (data / "images/003.png").write_bytes(encoded(picture(9)))
    assert np.array_equal(channels_last(load(str(data)).train.images)[3], picture(9)), "the cache knows these files"
    write_folder(tmp_path / "secret", {".": 1})
    for name in ("../secret/000.png", str(tmp_path / "secret/000.png")):
        pq.write_table(table({"image": structs([None] * 4, [name] * 4), "label": [0, 1, 0, 1]}), data / "train.parquet")
        with pytest.raises(DataError, match=r"row 0 names .*000\.png'; write the images into the table"):
            load(str(data))


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_files_of_save_to_disk(tmp_path: Path, stream: bool) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    for name, labels in (("train", [1, 0, 1, 0, 0]), ("validation", [0, 1]), ("test", [1, 0])):
        rows = table({"image": structs(list(pictures(len(labels))), [None] * len(labels)), "label": labels})
        folder = tmp_path / "saved" / name
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text(json.dumps({"features": features, "splits": {}}))
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
        file = folder / "data-00000-of-00001.arrow"
        with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(file), rows.schema) as writer:
            writer.write_table(rows, max_chunksize=2)
    (tmp_path / "saved/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    data = load(str(tmp_path / "saved"))
    targets = [split.targets.tolist() for split in (data.train, data.val, data.test)]
    assert (data.classes, targets) == (("cat", "dog"), [[1, 0, 1, 0, 0], [0, 1], [1, 0]])
    assert np.array_equal(channels_last(data.train.images), [picture(i) for i in range(5)])


def test_a_test_split_without_labels_is_none(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1] * 5, ["cat", "dog"])
    write_parquet(tmp_path / "test.parquet", [-1, -1], ["cat", "dog"])
    data = load(str(tmp_path))
    assert counts(data) == (6, 2, 2)
    assert "left out: test.parquet (no labels)" in data.note


# --- bounds -----------------------------------------------------------------------------------------------


def test_rows_that_share_a_value_are_read_in_little_memory(tmp_path: Path) -> None:
    content = encoded(picture(0)) + bytes(2_000_000)  # what follows an image is not read
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array([content], pa.binary()))
    image = pa.StructArray.from_arrays([values, pa.nulls(200, pa.string())], ["bytes", "path"])
    rows = pa.table({"image": image, "label": [0, 1] * 100})
    pq.write_table(
        rows, tmp_path / "x.parquet", store_schema=False, compression="none", dictionary_pagesize_limit=10**8
    )
    assert (tmp_path / "x.parquet").stat().st_size < 3_000_000
    code = (
        "import resource, sys; from mvnas.data import load; from mvnas.errors import DataError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(len(load(sys.argv[1]).classes), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.parquet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    classes, kilobytes = map(int, done.stdout.split())
    assert classes == 2
    assert kilobytes < 200_000, "the values one by one are 400 MB, and as many again where they are copied"


def test_tables_far_larger_than_their_files_are_refused(tmp_path: Path) -> None:
    label = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3_000_000, np.int32)), pa.array([1]))
    image = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3_000_000, np.int32)), pa.array([b"?"]))
    pq.write_table(
        pa.table({"image": image.cast(pa.binary()), "label": label.cast(pa.int64())}), tmp_path / "rows.parquet"
    )
    rows = [bytes([i]) * 2_000_000 for i in range(40)]
    pq.write_table(pa.table({"image": rows, "label": [0, 1] * 20}), tmp_path / "zip.parquet", compression="zstd")
    for name in ("rows", "zip"):
        with pytest.raises(DataError, match="must not be far larger than its file"):
            load(str(tmp_path / f"{name}.parquet"))


@pytest.mark.parametrize(
    "told",
    [
        "[" * 200_000,
        '{"info": ' * 50_000,
        "[]",
        '{"info": []}',
        '{"info": {"features": {"label": {"names": "cat"}}}}',
        '{"info": {"features": {"label": 3}}}',
    ],
)
def test_metadata_that_are_none_are_passed_over(tmp_path: Path, told: str) -> None:
    made = pa.table({"image": pictures(4), "label": [0, 1, 0, 1]}).replace_schema_metadata({"huggingface": told})
    pq.write_table(made, tmp_path / "x.parquet")
    assert load(str(tmp_path / "x.parquet")).classes == ("0", "1")


def test_huge_metadata_are_refused(tmp_path: Path) -> None:
    made = pa.table({"image": pictures(2), "label": [0, 1]}).replace_schema_metadata({"huggingface": " " * 10_000_001})
    pq.write_table(made, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="at most 10,000,000 bytes"):
        load(str(tmp_path / "x.parquet"))
