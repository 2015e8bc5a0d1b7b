"""Laws of the data sets: what is read equals what was written, and nothing unreadable passes in silence."""

from __future__ import annotations

import io
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import channels_last, encoded, picture, write_folder, write_parquet
from PIL import Image

from mvnas.data import Data, load
from mvnas.data._decode import _tested
from mvnas.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "imagenette128"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "mvnas"


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 wrote its `str`, as in the published CIFAR files."""

    def save_string(self, text: str | bytes) -> None:
        raw = text.encode() if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, str: save_string, bytes: save_string}


def python2(content: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, 2).dump(content)
    return buffer.getvalue().replace(b"numpy._core.", b"numpy.core.")


def python3(content: object) -> bytes:
    return pickle.dumps(content, 2)


def write_cifar(root: Path, version: str) -> Path:
    """Ten images a batch, labels alternating 0 and 1; image i of a batch shows `picture(i)`."""
    root.mkdir()
    planes = np.stack([picture(i).transpose(2, 0, 1).ravel() for i in range(10)])
    labels = [i % 2 for i in range(10)]
    ten, names = version.startswith("10 "), ["apple", "bear"]
    batches = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if ten else ["train", "test"]
    for name in batches:
        if version.endswith("binary"):
            head = [[label] if ten else [9, label] for label in labels]
            (root / f"{name}.bin").write_bytes(np.hstack([np.array(head, np.uint8), planes]).tobytes())
        else:
            dump = python2 if version.endswith("python 2") else python3
            (root / name).write_bytes(dump({"data": planes, "labels" if ten else "fine_labels": labels}))
    if version.endswith("binary"):
        (root / ("batches.meta.txt" if ten else "fine_label_names.txt")).write_text("apple\nbear\n\n")
    else:
        meta = dump({"label_names" if ten else "fine_label_names": names})
        (root / ("batches.meta" if ten else "meta")).write_bytes(meta)
    return root


def same(one: Data, two: Data) -> bool:
    pairs = ((one.train, two.train), (one.val, two.val), (one.test, two.test))
    return all(np.array_equal(a.images, b.images) and np.array_equal(a.targets, b.targets) for a, b in pairs)


# --- what is read equals what was written -----------------------------------------------------------------


def test_digits_are_split_in_a_fixed_way_and_say_that_they_are_a_demo(cache: Path) -> None:
    data = load("digits")
    assert "demo" in data.note
    assert data.side == 32
    assert (data.train.images.min(), data.train.images.max()) == (0, 255)
    assert [len(data.train), len(data.val), len(data.test)] == [1079, 602, 116]
    train, val, test = (np.bincount(split.targets) for split in (data.train, data.val, data.test))
    assert np.all((1.9 * val < train + test) & (train + test < 2.1 * val) & (9 * test <= train) & (train < 10 * test))
    assert same(data, load("digits", seed=7))
    assert not cache.exists()


def test_images_are_uint8_rgb_and_labels_int64(tmp_path: Path) -> None:
    for source in ("digits", str(write_folder(tmp_path, {"a": 3, "b": 3}))):
        data = load(source)
        for split in (data.train, data.val, data.test):
            assert split.images.dtype == np.uint8
            assert split.images.shape == (len(split), 3, 32, 32)
            assert split.targets.dtype == np.int64


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_a_folder_with_splits_is_read_exactly_and_in_the_order_of_names(tmp_path: Path, val: str) -> None:
    layout = {"train/cat": 2, "train/dog": 3, f"{val}/cat": 1, f"{val}/dog": 1, "test/cat": 1, "test/dog": 2}
    data = load(str(write_folder(tmp_path, layout)))
    assert data.classes == ("cat", "dog")
    assert data.train.targets.tolist() == [0, 0, 1, 1, 1]
    assert np.array_equal(channels_last(data.train.images), [picture(i) for i in range(5)])
    assert np.array_equal(channels_last(data.val.images), [picture(5), picture(6)])
    assert np.array_equal(channels_last(data.test.images), [picture(7), picture(8), picture(9)])
    assert data.note == f"took train/ to train, {val}/ to validate, test/ to test"
    assert data.name == str(tmp_path)


def test_a_class_may_be_called_train_and_images_may_lie_deeper(tmp_path: Path) -> None:
    write_folder(tmp_path, {"bus": 2, "train": 2, "tram/red": 1, "tram/green": 1})
    assert load(str(tmp_path)).classes == ("bus", "train", "tram")


def test_files_that_are_no_images_and_splits_that_are_not_used_are_said(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{split}/{name}": 1 for split in ("train", "val", "dev") for name in "ab"})
    for name in ("a/001.txt", "a/002.TXT", "b/about", "a/.hidden.png"):
        (tmp_path / "train" / name).write_bytes(b"?")
    note = load(str(tmp_path)).note
    assert "left out: dev/ (another validates)" in note
    assert "files that are no images: 3 (a: 2 .txt, b: 1 no suffix)" in note


@pytest.mark.parametrize("at", ["{}.parquet", "data/{}-00000-of-00001.parquet"])
def test_parquet_files_are_read_exactly(tmp_path: Path, at: str) -> None:
    write_parquet(tmp_path / at.format("train"), [1, 0, 1, 0, 0], ["cat", "dog"])
    write_parquet(tmp_path / at.format("validation"), [0, 1], ["cat", "dog"])
    write_parquet(tmp_path / at.format("test"), [1, 1, 0], ["cat", "dog"])
    data = load(str(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.train.targets.tolist() == [1, 0, 1, 0, 0]
    assert np.array_equal(channels_last(data.train.images), [picture(i) for i in range(5)])
    assert np.array_equal(channels_last(data.val.images), [picture(0), picture(1)])
    assert data.test.targets.tolist() == [1, 1, 0]
    assert np.array_equal(channels_last(data.test.images), [picture(0), picture(1), picture(2)])


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for shard, label in ((1, 1), (3, 3), (0, 0), (4, 4), (2, 2)):
        write_parquet(tmp_path / f"train-{shard:05}-of-00005.parquet", [label], list("abcde"))
    for split in ("val", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [0, 1, 2, 3, 4], list("abcde"))
    assert load(str(tmp_path)).train.targets.tolist() == [0, 1, 2, 3, 4]


def test_parquet_without_class_names_calls_a_class_by_its_label(tmp_path: Path) -> None:
    data = load(str(write_parquet(tmp_path / "x.parquet", [7, 3, 7, 3])))
    assert data.classes == ("3", "7")
    assert sorted(data.train.targets.tolist()) == [0, 1]


@pytest.mark.parametrize("version", [f"{n} {kind}" for n in (10, 100) for kind in ("python 2", "python 3", "binary")])
def test_cifar_files_are_read_exactly(tmp_path: Path, version: str) -> None:
    data = load(str(write_cifar(tmp_path / "cifar", version)))
    assert data.classes == ("apple", "bear")
    total = 50 if version.startswith("10 ") else 10
    assert (len(data.train), len(data.val)) == (0.8 * total, 0.2 * total)
    assert data.test.targets.tolist() == [0, 1] * 5
    assert np.array_equal(channels_last(data.test.images), [picture(i) for i in range(10)])
    known = {image.tobytes() for image in data.test.images}
    assert {image.tobytes() for image in np.concatenate([data.train.images, data.val.images])} == known
    assert data.note == "no validation images given: 20% of each class held out"


def test_the_files_like_cifars_hold_bytes_as_keys(tmp_path: Path) -> None:
    batch = (write_cifar(tmp_path / "cifar", "10 python 2") / "test_batch").read_bytes()
    assert set(pickle.loads(batch, encoding="bytes")) == {b"data", b"labels"}


def test_a_module_of_ones_own_is_a_dozen_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stripes.py").write_text(
        "import numpy as np\n"
        "class Dataset:\n"
        "    classes, note, files = ('dark', 'light'), 'two greys', ()\n"
        "    def items(self, split):\n"
        "        if split == 'train':\n"
        "            for i in range(10):\n"
        "                yield np.full((40, 60), 200 * (i % 2), np.uint8), i % 2\n"
        "        else:\n"
        "            yield from [(np.zeros((40, 60, 3), np.uint8), 0), (np.ones((40, 60), np.uint8), 1)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = load("mine.stripes")
    assert (data.name, data.classes, data.side) == ("mine.stripes", ("dark", "light"), 40)
    assert data.note == "two greys; no test images given: 10% of each class held out"
    assert data.train.images.mean(axis=(1, 2, 3)).tolist() == [0, 200] * 4
    assert data.val.images.mean(axis=(1, 2, 3)).tolist() == [0, 1], "as given"
    assert data.test.images.mean(axis=(1, 2, 3)).tolist() == [0, 200], "and not what is given for any word"


ANSWERS = {  # what a source says of a split, by its name, and how many test images it has so
    "{'train': rows(20), 'val': rows(4), 'test': rows(6)}.get(split)": 6,
    "{'train': rows(20), 'val': rows(4), 'test': rows(6)}[split]": 6,
    "iter({'train': rows(20), 'val': rows(4), 'test': rows(6)}.get(split, []))": 6,
    "{'train': rows(20), 'val': None}[split]": 2,
    "{'train': rows(20), 'val': rows(4)}.get(split, [])": 2,
    "rows(20) if split == 'train' else rows(4)": 2,
    "rows(20)": 2,
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_source_may_have_test_images_or_never_have_heard_of_them(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"answers{list(ANSWERS).index(answer)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "own.py").write_text(
        "import numpy as np\n"
        "def rows(count):\n"
        "    return [(np.full((32, 32), count + i, np.uint8), i % 2) for i in range(count)]\n"
        "class Dataset:\n"
        "    classes, note, files = ('a', 'b'), '', ()\n"
        f"    def items(self, split):\n        return {answer}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(load(f"{name}.own").test) == ANSWERS[answer]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the real photos in {REAL}")
def test_real_photos_of_the_hub_layout(tmp_path: Path) -> None:
    rows = pq.read_table(REAL / "validation.parquet").take(np.arange(0, 3925, 20))
    pq.write_table(rows, tmp_path / "train.parquet")
    data = load(str(tmp_path), seed=1)
    assert data.classes[:2] == ("tench", "English springer")
    assert data.side == 128
    assert len(data.train) + len(data.val) + len(data.test) == len(rows) == 197
    assert 0.18 < len(data.val) / 197 < 0.22 and 0.08 < len(data.test) / 197 < 0.12
    shown = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in rows["image"].to_pylist()]
    written = sorted(image.tobytes() for image in shown)
    read = [image for split in (data.train, data.val, data.test) for image in channels_last(split.images)]
    assert sorted(np.ascontiguousarray(image).tobytes() for image in read) == written


# --- decoding ---------------------------------------------------------------------------------------------


def decoded(tmp_path: Path, name: str, content: bytes, side: int = 32) -> np.ndarray:
    """`content` as (side, side, 3), read as one image of a folder in which all others have this side."""
    write_folder(tmp_path, {"train/a": 4, "train/b": 4, "val/a": 0, "val/b": 1}, side)
    (tmp_path / "val" / "a" / name).write_bytes(content)
    images: np.ndarray = channels_last(load(str(tmp_path)).val.images)
    return np.asarray(images[0])


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn a quarter clockwise to show
    image = decoded(tmp_path, "x.png", encoded(picture(1), exif=exif))
    assert np.array_equal(image, np.rot90(picture(1), -1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_eight_bit_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    original = Image.fromarray(picture(1)).convert(mode)
    buffer = io.BytesIO()
    original.save(buffer, "tiff" if mode == "CMYK" else "png", **({"transparency": b"\0\x40"} if mode == "P" else {}))
    image = decoded(tmp_path, "x.tif" if mode == "CMYK" else "x.png", buffer.getvalue())
    assert np.array_equal(image, np.asarray(original.convert("RGB")))


def test_sixteen_bits_are_refused_rather_than_clipped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.png does not \(it has more than 8 bits"):
        decoded(tmp_path, "x.png", encoded(np.full((32, 32), 40000, np.uint16)))


def test_the_centre_is_cut_out(tmp_path: Path) -> None:
    wide = np.concatenate([picture(i) for i in (1, 2, 3)], axis=1)
    assert np.array_equal(decoded(tmp_path, "x.png", encoded(wide)), picture(2))


def test_shrinking_averages(tmp_path: Path) -> None:
    board = np.kron(np.indices((512, 512)).sum(0) % 2, np.ones((1, 1))).astype(np.uint8) * 255
    for name, kind in (("x.png", "png"), ("x.jpg", "jpeg")):
        image = decoded(tmp_path / kind, name, encoded(board, kind))
        assert np.abs(image[4:-4, 4:-4].astype(int) - 127).max() <= 4


@pytest.mark.parametrize(("sides", "side"), [([20, 20], 32), ([40, 60], 50), ([400, 400], 320), ([33, 33], 33)])
def test_the_side_is_the_median_short_side_between_32_and_320(tmp_path: Path, sides: list[int], side: int) -> None:
    for i, size in enumerate(sides):
        write_folder(tmp_path / "train", {f"{i}": 1}, size)
        write_folder(tmp_path / "val", {f"{i}": 1}, 99)
    assert load(str(tmp_path)).side == side


# --- own split, repeatability, fingerprint ----------------------------------------------------------------


def test_splits_that_are_not_given_are_held_out_of_each_class_and_said(tmp_path: Path) -> None:
    data = load(str(write_folder(tmp_path, {"a": 10, "b": 20, "c": 2, "d": 3})))
    assert np.bincount(data.val.targets).tolist() == [2, 4, 1, 1]
    assert np.bincount(data.test.targets, minlength=4).tolist() == [1, 2, 0, 1], "one at least, but never the last"
    assert np.bincount(data.train.targets).tolist() == [7, 14, 1, 1]
    assert data.note == (
        "no validation images given: 20% of each class held out; no test images given: 10% of each class held out"
    )
    everything = np.concatenate([data.train.images, data.val.images, data.test.images])
    assert len({image.tobytes() for image in everything}) == 35


def test_of_each_split_what_is_given_stays_and_the_others_are_cut_from_training(tmp_path: Path) -> None:
    alone = {"train/a": 20, "train/b": 10}
    val, test = {"val/a": 2, "val/b": 3}, {"test/a": 3, "test/b": 1}
    cases = {"0": alone, "val": alone | val, "test": alone | test, "both": alone | val | test}
    read = {name: load(str(write_folder(tmp_path / name, layout))) for name, layout in cases.items()}
    counts = {name: [len(data.train), len(data.val), len(data.test)] for name, data in read.items()}
    assert counts == {"0": [21, 6, 3], "val": [27, 5, 3], "test": [24, 6, 4], "both": [30, 5, 4]}
    assert np.array_equal(channels_last(read["val"].val.images), [picture(i) for i in range(30, 35)])
    assert np.array_equal(channels_last(read["test"].test.images), [picture(i) for i in range(30, 34)])
    assert np.array_equal(read["test"].val.images, read["0"].val.images), "the same ones, with a test or without"


def test_no_more_than_5000_test_images_are_cut() -> None:
    targets = np.repeat([0, 1, 2], [100_000, 20_000, 3])
    held = _tested(targets, np.ones(len(targets), bool), ("a", "b", "c"), 0)
    assert np.bincount(targets[held]).tolist() == [4166, 833, 1]
    assert _tested(targets, np.ones(len(targets), bool), None, 0).sum() == 5000


def test_a_test_split_may_lack_classes_and_not_be_empty(tmp_path: Path) -> None:
    data = load(str(write_folder(tmp_path, {"train/a": 9, "train/b": 9, "test/b": 2})))
    assert data.test.targets.tolist() == [1, 1]


def test_test_images_are_mapped_and_none_is_read_twice(tmp_path: Path) -> None:
    source = str(write_folder(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1}))
    load(source)
    assert isinstance(load(source).test.images, np.memmap)
    few = str(write_folder(tmp_path / "few", {"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1}))
    for data in (load(few), load(few)):
        assert len(data.test) == 0 and data.test.images.shape == (0, 3, 32, 32)
        assert "no test images given: too few to hold any out" in data.note


def test_equal_seeds_are_bit_identical_and_others_split_otherwise(tmp_path: Path) -> None:
    source = str(write_folder(tmp_path / "data", {"a": 10, "b": 10}))
    one, two = (load(source, seed=1, cache=tmp_path / name) for name in "xy")
    assert not same(one, load(source, seed=2, cache=tmp_path / "x"))
    assert same(one, two)
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("change", ["image", "label", "class", "fewer"])
def test_the_fingerprint_changes_with_the_data_and_not_with_its_place(tmp_path: Path, change: str) -> None:
    layout = {"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1}
    first = load(str(write_folder(tmp_path / "1", layout))).fingerprint
    second = write_folder(tmp_path / "2", layout)
    assert load(str(second)).fingerprint == first
    file = second / "train" / "a" / "002.png"
    if change == "image":
        file.write_bytes(encoded(picture(99)))
    elif change == "label":
        file.rename(second / "train" / "b" / "!.png")
    elif change == "class":
        for split in ("train", "val", "test"):
            (second / split / "b").rename(second / split / "c")
    else:
        file.unlink()
    assert load(str(second)).fingerprint != first


# --- the cache --------------------------------------------------------------------------------------------


def test_the_second_load_does_not_decode_and_a_touched_file_does(tmp_path: Path, cache: Path) -> None:
    source = write_folder(tmp_path, {"a": 3, "b": 3})
    first = load(str(source))
    assert isinstance(first.train.images, np.memmap)
    file = source / "a" / "000.png"
    stat = file.stat()
    file.write_bytes(b"\0" * stat.st_size)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = load(str(source))
    assert same(first, second)
    assert (second.name, second.note, second.classes) == (first.name, first.note, first.classes)
    assert len(list(cache.iterdir())) == 1
    file.touch()
    with pytest.raises(DataError, match=r"000\.png"):
        load(str(source))


def test_a_failed_decode_leaves_nothing_behind(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", {"a": 3, "b": 3})
    (tmp_path / "data" / "b" / "002.png").write_bytes(encoded(picture(1))[:-200])
    with pytest.raises(DataError):
        load(str(tmp_path / "data"), cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_disk_that_is_full_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    source = str(write_folder(tmp_path / "data", {"a": 3, "b": 3}, 64))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # files may be no larger: what a full disk is like
    try:
        with pytest.raises(
            DataError, match=r"^the image cache .* must be writable, but the system says: .*; set XDG_CACHE_HOME"
        ):
            load(source, cache=tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "cache").iterdir()) == []
    assert load(source, cache=tmp_path / "cache").side == 64


def test_a_kill_in_mid_decode_leaves_nothing_that_is_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "pets", {"a": 4, "b": 4})
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mortal.py").write_text(
        "import os, pathlib, signal\n"
        "class Dataset:\n"
        "    classes, note, passes = ('a', 'b'), '', 0\n"
        f"    files = sorted(pathlib.Path({str(tmp_path / 'pets')!r}).glob('*/*.png'))\n"
        "    def items(self, split):\n"
        "        return self.rows() if split == 'train' else None\n"
        "    def rows(self):\n"
        "        self.passes += 1\n"
        "        for i, file in enumerate(self.files):\n"
        "            if i == 6 and self.passes == 2 and 'MORTAL' in os.environ:\n"
        "                os.kill(os.getpid(), signal.SIGKILL)\n"
        "            yield file, 'ab'.index(file.parent.name)\n"
    )
    env = {**os.environ, "MORTAL": "1", "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    died = subprocess.run([sys.executable, "-c", "import mvnas.data as d; d.load('own.mortal')"], env=env)
    assert died.returncode == -signal.SIGKILL
    assert [file.name for file in cache.glob("*/*")] == ["train.images"]
    monkeypatch.syspath_prepend(str(tmp_path))
    other = load(str(tmp_path / "pets"))
    assert [file.suffix for file in cache.iterdir()] == [""], (
        "what the dead process left was removed, though of other images"
    )
    assert same(load("own.mortal"), other)


def test_a_changed_module_is_decoded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "pets", {"a": 4, "b": 4})
    (tmp_path / "own").mkdir()
    code = (
        "import pathlib\n"
        "class Dataset:\n"
        "    classes, note = ('a', 'b'), ''\n"
        f"    files = sorted(pathlib.Path({str(tmp_path / 'pets')!r}).glob('*/*'))\n"
        "    def items(self, split):\n"
        "        if split == 'train':\n"
        "            return [(file, {}'ab'.index(file.parent.name)) for file in self.files]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for sign, labels in (("", [0] * 2 + [1] * 2), ("1 - ", [1] * 2 + [0] * 2)):
        (tmp_path / "own" / "moody.py").write_text(code.format(sign))
        sys.modules.pop("own.moody", None)
        assert load("own.moody").train.targets.tolist() == labels


def test_a_damaged_or_unwritable_cache_is_said(tmp_path: Path, cache: Path) -> None:
    source = str(write_folder(tmp_path / "data", {"a": 3, "b": 3}))
    load(source)
    next(cache.glob("*/val.labels.npy")).write_bytes(b"")
    with pytest.raises(DataError, match=r"damaged .* delete that folder"):
        load(source)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"must be writable, but .* XDG_CACHE_HOME"):
        load(source, cache=tmp_path / "file" / "x")


# --- broken images ----------------------------------------------------------------------------------------


def break_one(root: Path, source: str) -> tuple[str, str]:
    """Data with one broken training image and its place in the error: none, cut off, empty or not there."""
    good = encoded(picture(0))
    if source == "parquet":
        file = write_parquet(root / "train.parquet", [0, 1, 0, 1, 0], contents=[good, good, good, None, good])
        for split in ("val", "test"):
            write_parquet(root / f"{split}.parquet", [0, 1])
        return str(root), f"{file} row 3"
    write_folder(root, {"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1})
    file = root / "train" / "b" / "001.png"
    if source == "link":
        file.unlink()
        file.symlink_to(root / "gone.png")
    else:
        file.write_bytes({"cut": good[:-300], "text": b"no image", "empty": b""}[source])
    return str(root), str(file)


@pytest.mark.parametrize("source", ["parquet", "cut", "text", "empty", "link"])
def test_a_broken_image_is_an_error_that_names_it_or_is_skipped_and_counted(tmp_path: Path, source: str) -> None:
    path, place = break_one(tmp_path, source)
    with pytest.raises(DataError, match=r"every image must decode, but .* mend or remove it") as caught:
        load(path)
    assert place in str(caught.value)
    for _ in ("decoded", "cached"):
        data = load(path, skip_broken=True)
        assert data.skipped == 1
        assert "1 broken image skipped" in data.note
        assert data.train.targets.tolist() == ([0, 1, 0, 0] if source == "parquet" else [0, 0, 0, 1, 1])
        assert len(data.train.images) == len(data.train)
    with pytest.raises(DataError, match="every image must decode"):
        load(path)


def test_a_broken_array_of_a_module_is_skipped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "floats.py").write_text(
        "import numpy as np\n"
        "class Dataset:\n"
        "    classes, note, files = ('a', 'b'), '', ()\n"
        "    def items(self, split):\n"
        "        return [(np.zeros((32, 32), np.float32 if i == 1 else np.uint8), i % 2) for i in range(6)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=r"item 1 of train does not .*mode F"):
        load("own.floats")
    data = load("own.floats", skip_broken=True)
    assert data.skipped == 2
    assert len(data.train) + len(data.test) == len(data.val) == 5


@pytest.mark.parametrize(("broken", "says"), [("a", "'a' has none; .* 2 of 8 images"), ("ab", "5 of 8 images")])
def test_skipping_may_not_empty_a_class(tmp_path: Path, broken: str, says: str) -> None:
    write_folder(tmp_path, {"train/a": 2, "train/b": 3, "val/a": 1, "val/b": 1, "test/a": 1})
    for name in broken:
        for file in (tmp_path / "train" / name).iterdir():
            file.write_bytes(b"?")
    with pytest.raises(DataError, match=f"{says} are broken, the first: .*000.png"):
        load(str(tmp_path), skip_broken=True)


# --- what cannot be trained on ----------------------------------------------------------------------------


FOLDERS = {
    "at least two classes, but got 1": {"a": 3},
    "one sub-folder a class, but .* has none": {},
    "but .*/b has none": {"a": 3, "b": 0},
    "two images to be split, but 'b' has one": {"a": 3, "b": 1},
    "validation images, but 'b' has none": {"train/a": 1, "train/b": 1, "val/a": 1},
    "training images, but 'c' has none": {"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1, "val/c": 1},
    "one sub-folder a class, but .*/train has none": {"train": 3, "test": 3},
    "there must be a folder train/, but .* has only val": {"val/a": 3, "val/b": 3},
}


@pytest.mark.parametrize("says", FOLDERS)
def test_a_folder_that_cannot_be_trained_on_is_said(tmp_path: Path, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(str(write_folder(tmp_path, FOLDERS[says])))


def parquet_mistakes(root: Path) -> Iterator[tuple[str, Path]]:
    """What the error says, and the files that cause it."""
    names = ["cat", "dog"]
    yield (
        r"0\.\.1, one a class, but .*\.parquet row 1 has 2",
        write_parquet(root / "a.parquet", [0, 2], names),
    )
    yield r"\.parquet row 1 has none", write_parquet(root / "b.parquet", [0, None, 1])
    yield "the training split must hold images, but it is empty", write_parquet(root / "c.parquet", [], names)
    write_parquet(root / "d/train.parquet", [0, 1], names)
    yield "the test split .* empty", write_parquet(root / "d/test.parquet", [], names).parent
    write_parquet(root / "e/train.parquet", [0, 1], names)
    yield "name the classes alike", write_parquet(root / "e/val.parquet", [0, 1], ["dog", "cat"]).parent
    yield r"one of them train, .* has test\.parquet", write_parquet(root / "f/test.parquet", [0]).parent
    pq.write_table(pa.table({"img": [1.0], "label": [0]}), root / "g.parquet")
    yield r"column of images .* has img \(double\), label \(int64\)", root / "g.parquet"
    (root / "h.parquet").write_bytes(write_parquet(root / "whole.parquet", [0, 1]).read_bytes()[:-9])
    yield "whole and readable, but .*h.parquet", root / "h.parquet"


@pytest.mark.parametrize("case", range(8))
def test_parquet_that_cannot_be_trained_on_is_said(tmp_path: Path, case: int) -> None:
    says, path = list(parquet_mistakes(tmp_path))[case]
    with pytest.raises(DataError, match=says):
        load(str(path))


@pytest.mark.parametrize(
    ("version", "file", "content", "says"),
    [
        ("10 python 2", "data_batch_2", slice(-50), "whole pickle .*data_batch_2"),
        ("10 python 2", "data_batch_2", None, "lacks data_batch_2"),
        (
            "100 python 3",
            "test",
            python3({"data": np.zeros((2, 3), np.uint8), "fine_labels": [0, 1]}),
            "must hold data",
        ),
        ("100 python 3", "train", python3([1]), "whole pickle"),
        ("10 binary", "test_batch.bin", slice(-1), "30729 bytes and is truncated"),
        ("100 binary", "train.bin", slice(0), "training split must hold images"),
        ("100 binary", "fine_label_names.txt", b"apple bear cat", "'cat' has none"),
    ],
)
def test_cifar_files_that_cannot_be_trained_on_are_said(
    tmp_path: Path, version: str, file: str, content: slice | bytes | None, says: str
) -> None:
    target = write_cifar(tmp_path / "cifar", version) / file
    if content is None:
        target.unlink()
    else:
        target.write_bytes(target.read_bytes()[content] if isinstance(content, slice) else content)
    with pytest.raises(DataError, match=says):
        load(str(target.parent))


class Bomb:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_cifar_pickle_cannot_call_anything(tmp_path: Path) -> None:
    root = write_cifar(tmp_path / "cifar", "10 python 2")
    (root / "data_batch_1").write_bytes(pickle.dumps({"data": Bomb(tmp_path / "boom"), "labels": []}))
    with pytest.raises(DataError, match=r"calls \w+\.mkdir"):
        load(str(root))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("digit", "unknown dataset 'digit'; did you mean 'digits'"),
        ("", "there is no ''"),
        ("no/such/folder", "there is no 'no/such/folder'"),
        ("pets.v2", "no path in .* its import says: No module named 'pets'"),
        ("photos-2.parquet", "there is no 'photos-2.parquet'"),
        ("folder", "from a path, but got only the word 'folder'"),
        ("mvnas.errors", "mvnas.errors must define a class Dataset"),
        ("halfway", "unknown dataset"),
        ("half.way", "half.way.Dataset must have classes, note, files and items"),
        (__file__, "a folder or a file ending in .parquet or .arrow, but .*test_datasets.py"),
        (5000 * "x", "unknown dataset 'x+ ... x+'; known"),
    ],
)
def test_a_source_that_is_none_is_said(source: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "way.py").write_text("class Dataset: classes = ('a', 'b')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=says):
        load(source)


def test_a_name_wins_over_a_path_and_a_path_over_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "folder"):
        write_folder(tmp_path / name, {"a": 2, "b": 2})
    assert len(load("digits").classes) == 10
    assert load("./digits").classes == load("folder").classes == ("a", "b")


def test_torch_is_not_needed() -> None:
    imports = [
        line.split()[1].split(".")[0]
        for file in (ROOT / "mvnas" / "data").glob("*.py")
        for line in file.read_text().splitlines()
        if line.lstrip().startswith(("import ", "from "))
    ]
    assert "numpy" in imports
    assert "torch" not in imports
