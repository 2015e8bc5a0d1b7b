"""From one encoded image to a square of sRGB: formats, orientation, transparency and colour."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, features

from mvnas.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")  # no others: some start programs
HEIF = (".heic", ".heif", ".hif")
LARGEST = 120_000_000  # pixels of an image: more than cameras make, and less than 2 GB in any format
VARIABLE = "MVNAS_MAX_PIXELS"
SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}  # of ICC profiles, with Pillow's modes
FRAMES = "of several frames, of which the first is taken"
CLEAR = "with transparent parts, laid on white"
PLAIN = "in CMYK without a profile, converted plainly"
MISFIT = "whose colour profile does not fit and is passed over"


@lru_cache(1)
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read: AVIF where Pillow has it, HEIF with the package pillow-heif."""
    found = FORMATS + (("AVIF",) if features.check("avif") else ())
    if find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
        found += ("HEIF",)
    return found


@lru_cache(1)
def suffixes() -> frozenset[str]:
    """Ends of the names of images that are read."""
    read = {*formats(), "MPO"}  # several JPEGs in one file, which Pillow opens as JPEG
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in read)


def largest() -> int:
    """Most pixels that an image may have. Raises: DataError if the environment names no such number."""
    told = os.environ.get(VARIABLE, "")
    try:
        return int(told) if told else LARGEST
    except ValueError:
        raise DataError(f"{VARIABLE} must be a number of pixels, but is {told!r}; for example 400000000") from None


@contextmanager
def opened(image: Path | bytes | np.ndarray) -> Iterator[Image.Image]:
    """The image, its header read. Raises: ValueError if it is too large, and whatever Pillow raises."""
    most, before = largest(), Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None  # we tell what allows it
        try:
            with _open(image) as picture:
                if (count := picture.width * picture.height) > most:
                    raise ValueError(
                        f"it has {count / 1e6:,.0f} million pixels, and may have {most / 1e6:,.0f}; {VARIABLE}={count}"
                        " allows it"
                    )
                yield picture
        finally:
            Image.MAX_IMAGE_PIXELS = before


def cropped(image: Path | bytes | np.ndarray, side: int, told: Counter[str]) -> np.ndarray:
    """Decode an image to sRGB, uint8 (3, side, side): upright, scaled to `side`, cropped to the centre, on white.

    Embedded colour profiles are applied. What is lost or guessed is counted in `told`.

    Raises: whatever Pillow raises for a file that it cannot read.
    """
    with opened(image) as picture:
        picture.draft(None, (2 * side, 2 * side))  # a JPEG far too large is decoded at a half, 1/4 or 1/8
        if picture.mode[0] in "IF":
            raise ValueError(f"it has more than 8 bits a channel (mode {picture.mode}): convert it to 8")
        remarks = [FRAMES] if getattr(picture, "is_animated", False) and picture.format != "MPO" else []
        profile = picture.info.get("icc_profile")
        ImageOps.exif_transpose(picture, in_place=True)
        grey = picture.mode in ("1", "L", "LA", "La")
        clear = picture.has_transparency_data
        part = _square(_smooth(picture, clear), side)
    if clear:
        part = part.convert("RGBA")
        remarks += [CLEAR] if part.getchannel("A").getextrema()[0] != 255 else []
        part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("L" if grey else "RGB")
    told.update(remarks)
    return np.asarray(_srgb(part, profile, told)).transpose(2, 0, 1)


def _open(image: Path | bytes | np.ndarray) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    if isinstance(image, Path) and image.exists() and not image.is_file():
        raise ValueError("it is no regular file")  # and might never end
    return Image.open(BytesIO(image) if isinstance(image, bytes) else image, formats=formats())


def _square(picture: Image.Image, side: int) -> Image.Image:
    return ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)


def _smooth(picture: Image.Image, clear: bool) -> Image.Image:
    """A picture in a mode whose values may be averaged, itself if it is; `clear`: with what is transparent."""
    mode = "RGBA" if clear else {"1": "L", "P": "RGB", "HSV": "RGB"}.get(picture.mode, picture.mode)
    return picture if picture.mode in (mode, "LA") else picture.convert(mode)


def _srgb(picture: Image.Image, profile: bytes | None, told: Counter[str]) -> Image.Image:
    """An opaque picture in sRGB; `profile` says what its numbers mean, else they are sRGB, or Lab."""
    if profile or picture.mode == "LAB":
        try:
            transform, mode = _transform(profile or b"", picture.mode)
            result = ImageCms.applyTransform(picture.convert(mode), transform)
            assert result is not None
            return result
        except (ImageCms.PyCMSError, ImportError, OSError, ValueError):
            if picture.mode == "LAB":
                raise
            told[MISFIT] += 1
    elif picture.mode == "CMYK":
        told[PLAIN] += 1
    return picture.convert("RGB")


@lru_cache(16)
def _transform(profile: bytes, mode: str) -> tuple[Any, str]:
    """What turns numbers of a profile (b"": Lab itself) into sRGB, and the mode that it takes.

    Raises: ValueError if a profile is not one of pictures in `mode`, PyCMSError if it is none.
    """
    space = ImageCms.createProfile("LAB") if not profile else ImageCms.ImageCmsProfile(BytesIO(profile)).profile
    takes = SPACES.get(space.xcolor_space, "")
    if takes != mode and (takes, mode) not in (("RGB", "L"), ("RGB", "YCbCr")):
        raise ValueError(f"a profile of {space.xcolor_space} for a picture of {mode}")
    return ImageCms.buildTransform(space, ImageCms.createProfile("sRGB"), takes, "RGB"), takes
