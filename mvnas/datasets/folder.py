"""A folder with one sub-folder of images a class, or with train/ and val/ that hold such sub-folders."""

from __future__ import annotations

from pathlib import Path

from mvnas.datasets import Item
from mvnas.errors import DataError

VALIDATION = ("val", "valid", "validation", "test")  # the first that exists is used
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Dataset:
    """Images in the order of their paths; a class is the name of its folder, at whatever depth the image."""

    def __init__(self, path: Path) -> None:
        splits, unused = _splits(path)
        folders = {split: _folders(root) for split, root in splits.items()}
        self.classes = tuple(sorted({folder.name for found in folders.values() for folder in found}))
        if not self.classes:
            raise DataError(
                f"a folder of images must hold one sub-folder a class, but {splits['train']} has none, nor "
                "parquet or CIFAR files; sort the images into folders named after the classes"
            )
        number = {name: i for i, name in enumerate(self.classes)}
        self._items: dict[str, list[Item]] = {split: [] for split in splits}
        others = 0
        for split, found in folders.items():
            for folder in found:
                images, rest = _images(folder)
                self._items[split] += [Item(file, number[folder.name], str(file)) for file in images]
                others += rest
        self.files = tuple(Path(item.place) for items in self._items.values() for item in items)
        notes = [f"files that are no images: {others}"] if others else []
        self.note = "; ".join(notes + [f"{root.name}/ not used" for root in unused])

    def items(self, split: str) -> list[Item] | None:
        return self._items.get(split)


def _splits(path: Path) -> tuple[dict[str, Path], list[Path]]:
    """The folders that hold the class folders, by split, and the validation folders that are left over.

    train/ is a split, and not a class, if it holds folders or if all folders beside it are named like splits.
    """
    folders = {entry.name.lower(): entry for entry in _folders(path)}
    all_splits = bool(folders) and folders.keys() <= {"train", *VALIDATION}
    if not all_splits and not ("train" in folders and _folders(folders["train"])):
        return {"train": path}, []
    if "train" not in folders:
        raise DataError(f"there must be a folder train/, but {path} has only {', '.join(folders)}; add it")
    val = [folders[name] for name in VALIDATION if name in folders]
    return {"train": folders["train"], **({"val": val[0]} if val else {})}, val[1:]


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> tuple[list[Path], int]:
    """The image files under `folder`, sorted, and the number of other files; hidden ones are passed over.

    Raises: DataError if there is no image file.
    """
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in file.relative_to(folder).parts) and not file.is_dir()
    ]
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not images:
        raise DataError(
            f"every class folder must hold images ({' '.join(SUFFIXES)}), but {folder} has none; "
            "add some or remove the folder"
        )
    return images, len(files) - len(images)
