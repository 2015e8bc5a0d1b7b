"""Laws of pictures: what is not plain RGB becomes what it shows, or is told; only named formats are opened."""

from __future__ import annotations

import io
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, picture, write_folder
from PIL import Image, ImageCms, features

from mvnas.data import load
from mvnas.data._pixels import cropped, formats, suffixes
from mvnas.errors import DataError

RED = (200, 30, 60)
SRGB = [[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]  # to XYZ, adapted to D50 (ICC)
DISPLAY_P3 = [[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]]
GAMMA = 2.2


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))


def plain(colour: tuple[int, ...] = RED, side: int = 40) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def seen(content: bytes, told: Counter[str] | None = None) -> list[int]:
    """Colour in the middle of a picture as it is trained on."""
    return [int(value) for value in cropped(content, 32, Counter() if told is None else told)[:, 16, 16]]


def near(one: list[int], two: tuple[float, ...] | list[float], by: float = 2) -> bool:
    return bool(np.abs(np.subtract(one, two)).max() <= by)


def icc(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A small ICC profile (version 2) of a monitor in a colour space."""
    tags = {b"desc": b"desc" + struct.pack(">4xI", 5) + b"mine\0" + bytes(78), b"wtpt": xyz(0.9642, 1, 0.8249), **tags}
    body, table, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = start + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    head += struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1, 0.8249)))
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ " + struct.pack(">4x3i", *(round(value * 65536) for value in values))


def curve(gamma: float) -> bytes:
    return b"curv" + struct.pack(">4xIH", 1, round(gamma * 256))


def rgb_profile(matrix: list[list[float]]) -> bytes:
    columns = dict(
        zip((b"rXYZ", b"gXYZ", b"bXYZ"), (xyz(*column) for column in zip(*matrix, strict=True)), strict=True)
    )
    return icc(b"RGB ", columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(GAMMA)))


def encode(linear: np.ndarray) -> list[float]:
    """Values of sRGB, 0 to 255, of light from 0 to 1."""
    light = np.clip(linear, 0, 1)
    return list(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def test_a_display_p3_picture_shows_its_colours_in_srgb() -> None:
    colour = (180, 90, 60)
    linear = (np.array(colour) / 255) ** GAMMA
    right = encode(np.linalg.solve(SRGB, DISPLAY_P3 @ linear))
    assert not near([*colour], right, 9), "the numbers alone are another colour"
    told: Counter[str] = Counter()
    for kind in ("png", "tiff", "webp"):
        options = {"lossless": True} if kind == "webp" else {}
        assert near(seen(saved(plain(colour), kind, icc_profile=rgb_profile(DISPLAY_P3), **options), told), right)
    assert not told


def test_a_grey_profile_is_applied_and_a_grey_picture_takes_one_of_rgb() -> None:
    linear = icc(b"GRAY", {b"kTRC": curve(1)})
    grey = Image.new("L", (40, 40), 100)
    assert near(seen(saved(grey, "png", icc_profile=linear)), encode(np.full(3, 100 / 255)))
    assert near(seen(saved(grey, "png", icc_profile=rgb_profile(SRGB))), encode(np.full(3, (100 / 255) ** GAMMA)))


def test_a_picture_in_srgb_by_its_profile_stays_as_it_is() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert near(seen(saved(plain(), "png", icc_profile=profile)), RED, 1)


@pytest.mark.parametrize("profile", [b"?" * 200, icc(b"GRAY", {b"kTRC": curve(1)}), icc(b"CMYK", {})])
def test_a_profile_that_does_not_fit_is_passed_over_and_told(profile: bytes) -> None:
    told: Counter[str] = Counter()
    assert seen(saved(plain(), "png", icc_profile=profile), told) == [*RED]
    assert told == {"whose colour profile does not fit and is passed over": 1}


def test_lab_is_converted_and_cmyk_without_a_profile_is_told() -> None:
    spaces = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    lab = ImageCms.applyTransform(plain(), ImageCms.buildTransform(*spaces, "RGB", "LAB"))
    assert lab is not None
    told: Counter[str] = Counter()
    assert near(seen(saved(lab, "tiff"), told), RED)
    assert not told
    assert seen(saved(plain().convert("CMYK"), "tiff"), told) == [*RED]
    assert told == {"in CMYK without a profile, converted plainly": 1}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_what_is_transparent_becomes_white_and_is_told(mode: str) -> None:
    image = Image.new("RGBA", (40, 40), (7, 7, 7, 0))
    image.paste((7, 7, 7, 255), (0, 0, 40, 10))
    if mode in ("RGBA", "LA"):
        content = saved(image.convert(mode), "png")
    else:
        image = plain((204, 51, 51)).convert(mode)
        content = saved(image, "png", transparency=image.getpixel((0, 0)))
    told: Counter[str] = Counter()
    assert seen(content, told) == [255] * 3
    assert told == {"with transparent parts, laid on white": 1}
    told.clear()
    assert seen(saved(plain().convert("RGBA"), "png"), told) == [*RED]
    assert not told, "nothing of it is transparent"


@pytest.mark.parametrize("kind", ["gif", "tiff", "png", "webp"])
def test_of_several_frames_the_first_is_taken_and_told(tmp_path: Path, kind: str) -> None:
    write_folder(tmp_path, {"a": 3, "b": 3})
    more = {"save_all": True, "append_images": [plain((1, 2, 3))]} | ({"lossless": True} if kind == "webp" else {})
    content = saved(plain(), kind, **more)
    assert near(seen(content), RED)
    (tmp_path / "a" / f"x.{kind}").write_bytes(content)
    assert load(str(tmp_path)).note.endswith("1 image of several frames, of which the first is taken")


def test_usual_suffixes_are_images(tmp_path: Path) -> None:
    assert suffixes() >= {".jfif", ".jpe", ".jpg", ".webp", ".png", ".bmp", ".tif", ".mpo"}
    assert (".avif" in suffixes()) == features.check("avif")
    write_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a/x.JFIF").write_bytes(encoded(picture(1), "jpeg"))
    (tmp_path / "b/x.avif" if features.check("avif") else tmp_path / "b/x.jpe").write_bytes(
        saved(plain(), "avif" if features.check("avif") else "jpeg")
    )
    data = load(str(tmp_path))
    assert len(data.train) + len(data.val) == 4


def test_heic_is_an_image_with_its_extra_and_told_without(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    if "HEIF" in formats():
        (tmp_path / "a/x.heic").write_bytes(saved(plain(), "heif"))
        assert sum(map(len, ((data := load(str(tmp_path))).train, data.val, data.test))) == 5
        return
    (tmp_path / "a/x.heic").write_bytes(b"?")
    assert "1 (a: 1 .heic); pip install 'mvnas[heic]' reads HEIC" in load(str(tmp_path)).note
    for file in (tmp_path / "b").iterdir():
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(DataError, match=r"b has none \(2 \.heic\); pip install 'mvnas\[heic\]'"):
        load(str(tmp_path))


@pytest.mark.parametrize("kind", ["eps", "pdf", "ico", "tga", "jpeg2000"])
def test_only_formats_that_are_named_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    content = saved(plain(), kind)
    (tmp_path / "a/x.png").write_bytes(content)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=r"a/x\.png does not \(it is none of JPEG, PNG, .*--skip-broken$"):
        load(str(tmp_path))


def test_a_panorama_is_refused_and_allowed_by_what_the_sentence_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b/wide.png").write_bytes(saved(Image.new("1", (60_000, 3_100)), "png"))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError, match=r"has 186 million pixels, and may have 120; MVNAS_MAX_PIXELS=186000000 allows"):
        load(str(tmp_path))
    monkeypatch.setenv("MVNAS_MAX_PIXELS", "186000000")
    data = load(str(tmp_path))
    assert len(data.train) + len(data.val) + len(data.test) == 5
    assert before == Image.MAX_IMAGE_PIXELS
    monkeypatch.setenv("MVNAS_MAX_PIXELS", "many")
    with pytest.raises(DataError, match="MVNAS_MAX_PIXELS must be a number of pixels, but is 'many'"):
        load(str(tmp_path), seed=1)
