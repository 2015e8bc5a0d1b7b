"""A folder with one sub-folder of images a class, or with folders of splits that hold such sub-folders."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from mvnas.data import Item
from mvnas.data._pixels import HEIF, formats
from mvnas.data._splits import PURPOSES, Named, split_of
from mvnas.data._tree import entries, files, foreign, has_data, inside, is_class, is_image, listed, subfolders
from mvnas.errors import DataError


class Dataset:
    """Images in the order of their paths; a class is the name of its folder, at whatever depth the image."""

    def __init__(self, path: Path) -> None:
        self._left: dict[str, list[str]] = defaultdict(list)
        self._others: dict[str, Counter[str]] = defaultdict(Counter)
        splits = self._splits(path)
        found = {split: self._images(root) for split, root in splits.items()}
        names = sorted({name for classes in found.values() for name in classes})
        self.classes = tuple(names)
        if not names:
            raise _no_classes(splits["train"], path)
        number = {name: label for label, name in enumerate(names)}
        self._items = {
            split: [Item(file, number[name], str(file)) for name in classes for file in classes[name]]
            for split, classes in found.items()
        }
        self.files = tuple(Path(item.place) for items in self._items.values() for item in items)
        self.note = "; ".join(filter(None, (self._took(path, splits), *self._told(path))))

    def items(self, split: str) -> list[Item] | None:
        return self._items.get(split)

    def _splits(self, path: Path) -> dict[str, Path]:
        """The folders that hold the class folders, by split; what is left over is noted."""
        layout = _layout(path)
        splits = {"train": inside(layout.train, split=layout.train != path)}
        known = _class_names(splits["train"])
        for folder in layout.held:
            root = inside(folder, split=True)
            names = _class_names(root)
            if not names:
                self._leave(folder, "its images are in no class folders" if has_data(root) else "no images")
            elif not names & known:
                self._leave(folder, f"its folders, {listed(sorted(names))}, are no classes in training")
            elif (kind := _kind(folder)) in splits:
                self._leave(folder, f"another {PURPOSES[kind]}s")
            else:
                splits[kind] = root
        for folder in layout.others:
            self._leave(folder, "no split")
        for root in dict.fromkeys((path, *splits.values())):
            for folder, why in foreign(root).items():
                self._leave(folder, why)
            self._left["in no class folder"] += [file.name for file in entries(root) if is_image(file)]
        self._outside = {*layout.held, *layout.others} if layout.train == path else set()
        return splits

    def _leave(self, folder: Path, why: str) -> None:
        """Note a folder that is left out."""
        self._left[why].append(f"{folder.name}/")

    def _images(self, root: Path) -> dict[str, list[Path]]:
        """Image files by class, sorted; other files are counted, and hidden ones passed over.

        Raises: DataError if a class folder holds none.
        """
        found: dict[str, list[Path]] = {}
        for folder in subfolders(root):
            if folder in self._outside:
                continue
            name, here = normalize("NFC", folder.name), sorted(files(folder))
            images = [file for file in here if is_image(file)]
            rest = Counter(file.suffix.lower() or "no suffix" for file in here if not is_image(file))
            if images:
                found[name] = found.get(name, []) + images
                self._others[name].update(rest)
            elif rest and not _pictures(rest):
                self._leave(folder, "no images")
            else:
                raise DataError(_empty(folder, rest))
        return dict(sorted(found.items()))

    def _took(self, path: Path, splits: dict[str, Path]) -> str:
        """Which folders are read, where it is not the one that was named."""
        told = [f"{_below(root, path)} to {PURPOSES[split]}" for split, root in splits.items()]
        return "" if splits == {"train": path} else f"took {', '.join(told)}"

    def _told(self, path: Path) -> list[str]:
        """What is left out, and where there is more."""
        left = [f"{listed(names)} ({why})" for why, names in self._left.items() if names]
        told = [f"left out: {', '.join(left)}"] if left else []
        rests = {name: rest for name, rest in self._others.items() if rest}
        if rests:
            count = sum(rest.total() for rest in rests.values())
            shown = (f"{name}: {_counted(rest)}" for name, rest in rests.items())
            told.append(f"files that are no images: {count} ({listed(shown)})")
        if any(_heif(rest) for rest in rests.values()):
            told.append("pip install 'mvnas[heic]' reads HEIC")
        return [*told, _beside(path)]


class _Layout(NamedTuple):
    """Folders by what they are for: training, validation or test (of each the first that can), and nothing."""

    train: Path
    held: list[Path]
    others: list[Path]


def _layout(path: Path) -> _Layout:
    """What the folders of a data set are for, by their names and what lies beside them.

    A folder called like a training split is one, and no class, if it holds folders of images, or all beside it are
    called like splits.
    """
    folders = subfolders(path)
    named = {folder: name for folder in folders if (name := split_of(folder.name))}
    sets: dict[tuple[str, ...], dict[Path, Named]] = defaultdict(dict)
    for folder, name in named.items():
        sets[name.beside][folder] = name
    for beside in sorted(sets, key=lambda words: (len(words), words)):
        its = sets[beside]
        train = [folder for folder, name in its.items() if name.kind == "train"]
        held = sorted((folder for folder in its if folder not in train), key=lambda folder: its[folder].rank)
        others = [folder for folder in folders if folder not in its]
        full = [folder for folder in others if has_data(folder)]
        if not train or (beside and full and not held):
            continue
        if len(train) > 1:
            raise DataError(
                f"there must be one folder to train on, but {path} has {listed(folder.name for folder in train)}; "
                "put their class folders into one, or give the path of one"
            )
        deep = any(map(has_data, subfolders(train[0])))
        if deep and full and not held:
            raise DataError(
                f"it must be clear what {path} holds, but {train[0].name}/ may be a split or a class beside"
                f" {listed(folder.name for folder in full)}; give {train[0]} if it is a split, rename it if it is a"
                " class"
            )
        if deep or not full:
            return _Layout(train[0], held, [folder for folder in others if folder in full])
    if folders and len(named) == len(folders) and len(sets) == 1 and all(n.kind != "train" for n in named.values()):
        raise DataError(
            f"there must be a folder train/, but {path} has only {listed(folder.name for folder in folders)}; add it"
        )
    plain = sorted(
        (f for f, name in named.items() if name.kind != "train" and not name.beside), key=lambda f: named[f].rank
    )
    return _Layout(path, plain, [])


def _kind(folder: Path) -> str:
    """The split that a folder's name speaks of."""
    name = split_of(folder.name)
    assert name
    return name.kind


def _class_names(root: Path) -> set[str]:
    return {normalize("NFC", folder.name) for folder in subfolders(root) if has_data(folder)}


def _no_classes(root: Path, path: Path) -> DataError:
    """What is wrong with the folder to train on, of the data at `path`, if it holds no class folders."""
    loose = sum(map(is_image, entries(root)))
    advice = "sort the images into folders named after the classes"
    try:
        above = Path(os.path.abspath(root)).parent
        if loose and root == path and sum(map(is_class, subfolders(above))) > 1:
            advice = f"give the folder above, {above}, if this is one class"
    except DataError:
        pass
    return DataError(
        f"a folder of images must hold one sub-folder a class, but {root} has none"
        f"{f', only {loose} images' if loose else ', nor parquet, arrow or CIFAR files'}; {advice}"
    )


def _empty(folder: Path, rest: Counter[str]) -> str:
    """What is wrong with a class folder without images that can be read."""
    if not rest:
        return f"every class folder must hold images, but {folder} has none; add some or move it elsewhere"
    way = "pip install 'mvnas[heic]'" if _heif(rest) else f"convert them to one of {', '.join(formats())}"
    return f"every class folder must hold images that can be read, but {folder} has none ({_counted(rest)}); {way}"


def _pictures(rest: Counter[str]) -> bool:
    """Whether there are images among files that are not read."""
    return _heif(rest) or not rest.keys().isdisjoint(
        {".avif", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".ico", ".tga", ".eps", ".jxl"}
    )


def _heif(rest: Counter[str]) -> bool:
    return not rest.keys().isdisjoint(HEIF)


def _counted(rest: Counter[str]) -> str:
    """Suffixes with their counts, the most frequent first."""
    return listed(f"{count} {suffix}" for suffix, count in rest.most_common())


def _below(root: Path, path: Path) -> str:
    return f"{root.relative_to(path)}/" if root != path else "the other folders"


def _beside(path: Path) -> str:
    """Where the folder is one split of a data set: what is not used of it."""
    place = Path(os.path.abspath(path))
    name = split_of(place.name)
    try:
        others = [
            folder.name
            for folder in (subfolders(place.parent) if name else [])
            if (its := split_of(folder.name))
            and name
            and its.beside == name.beside
            and its.kind != name.kind
            and has_data(folder)
        ]
    except DataError:
        return ""
    return f"beside it {listed(others)} is not used, but with --data {place.parent}" if others else ""
