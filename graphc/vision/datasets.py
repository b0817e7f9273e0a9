"""Datasets of pictures, read from the original files on disk; nothing is downloaded, nothing unpickled."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphc.frontend.tensor import from_array
from graphc.utils.data import Dataset
from graphc.vision.images import Image

__all__ = ["CIFAR10", "MNIST", "FashionMNIST", "ImageFolder", "VisionDataset"]

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
Transform = Callable[[Any], Any] | None


class VisionDataset(Dataset[tuple[Any, Any]]):
    """Base class: a root folder and transforms of picture and target, or of both together."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        transform: Transform = None,
        target_transform: Transform = None,
    ) -> None:
        if transforms is not None and (transform is not None or target_transform is not None):
            raise ValueError("Only transforms or transform/target_transform can be passed as argument")
        self.root = Path(root).expanduser()
        self.transforms, self.transform, self.target_transform = transforms, transform, target_transform

    def _apply(self, picture: Any, target: Any) -> tuple[Any, Any]:
        if self.transforms is not None:
            return self.transforms(picture, target)
        if self.transform is not None:
            picture = self.transform(picture)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return picture, target

    def __len__(self) -> int:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """A further line of the repr."""
        return ""

    def __repr__(self) -> str:
        body = [f"Number of datapoints: {len(self)}", f"Root location: {self.root}"]
        body += self.extra_repr().splitlines()
        if self.transform is not None or self.target_transform is not None:
            body.append("StandardTransform")
        for name, value in (("Transform", self.transform), ("Target transform", self.target_transform)):
            if value is not None:
                lines = repr(value).splitlines()
                body += [f"{name}: {lines[0]}", *[" " * (len(name) + 2) + line for line in lines[1:]]]
        return "\n".join([f"Dataset {type(self).__name__}", *[f"    {line}" for line in body]])


def pil_loader(path: str | os.PathLike[str]) -> Image.Image:
    """The picture of a file, in colour."""
    with Image.open(path) as image:
        return image.convert("RGB")


class ImageFolder(VisionDataset):
    """Pictures in one folder a class: root/cat/1.png has the target of "cat".

    classes       names of the folders, sorted; class_to_idx gives their numbers
    samples       (path, target) of every picture, also as `imgs`; targets their numbers
    loader        how to read a file (default: a colour Pillow image)
    is_valid_file which files are pictures (default: by extension)
    FileNotFoundError without class folders, and for a class without pictures unless `allow_empty`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Transform = None,
        target_transform: Transform = None,
        loader: Callable[[str], Any] = pil_loader,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.loader = loader
        self.classes, self.class_to_idx = self.find_classes(self.root)
        valid = is_valid_file or (lambda path: path.lower().endswith(IMG_EXTENSIONS))
        self.samples = [
            (p, i) for name, i in self.class_to_idx.items() for p in _files(self.root / name, valid)
        ]
        self.imgs, self.targets = self.samples, [target for _, target in self.samples]
        empty = sorted(set(self.class_to_idx.values()) - set(self.targets))
        if empty and not allow_empty:
            names = ", ".join(self.classes[i] for i in empty)
            supported = "" if is_valid_file else f" Supported extensions are: {', '.join(IMG_EXTENSIONS)}"
            raise FileNotFoundError(f"Found no valid file for the classes {names}.{supported}")

    def find_classes(self, directory: str | os.PathLike[str]) -> tuple[list[str], dict[str, int]]:
        """The names of the class folders, sorted, and their numbers."""
        classes = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
        if not classes:
            raise FileNotFoundError(f"Couldn't find any class folder in {directory}.")
        return classes, {name: i for i, name in enumerate(classes)}

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        return self._apply(self.loader(path), target)

    def __len__(self) -> int:
        return len(self.samples)


def _files(folder: Path, valid: Callable[[str], bool]) -> list[str]:
    found = [
        os.path.join(at, name)
        for at, _, names in sorted(os.walk(folder, followlinks=True))
        for name in sorted(names)
    ]
    return [path for path in found if valid(path)]


def _missing(what: str, folder: Path, files: Sequence[str], source: str) -> RuntimeError:
    return RuntimeError(
        f"{what}: {' and '.join(files)} not found in {folder}. graphc downloads nothing: put the original "
        f"files there ({source})"
    )


class _Splits(VisionDataset):
    """Datasets of a training part and a test part, both in the original files."""

    classes: ClassVar[list[str]]

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform = None,
        target_transform: Transform = None,
        download: bool = False,
    ) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.train = train
        self._load()

    def _load(self) -> None:
        """Read this part: set `data` and `targets`."""
        raise NotImplementedError

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class."""
        return {name: i for i, name in enumerate(self.classes)}

    def extra_repr(self) -> str:
        """Which part this is."""
        return f"Split: {'Train' if self.train else 'Test'}"


class MNIST(_Splits):
    """Handwritten digits (LeCun, Cortes and Burges): 28 x 28 grey pictures with their digit.

    Reads the original idx files, plain or gzipped, in root/MNIST/raw: ``train-images-idx3-ubyte`` and
    its like. `data` is uint8 [n, 28, 28], `targets` int64 [n]. Samples are (Pillow image, int).
    RuntimeError if files are missing or damaged.
    """

    classes: ClassVar[list[str]] = [
        f"{i} - {name}" for i, name in enumerate("zero one two three four five six seven eight nine".split())
    ]
    _source = "train-images-idx3-ubyte.gz etc. of the MNIST database"

    def _load(self) -> None:
        part = "train" if self.train else "t10k"
        self.data = from_array(self._read(f"{part}-images-idx3-ubyte", 3))
        self.targets = from_array(self._read(f"{part}-labels-idx1-ubyte", 1).astype(np.int64))
        if len(self.data) != len(self.targets):
            raise RuntimeError(
                f"{type(self).__name__}: {len(self.data)} pictures but {len(self.targets)} labels"
            )
        self._pixels, self._labels = self.data.numpy().copy(), self.targets.tolist()

    @property
    def raw_folder(self) -> str:
        """Where the original files lie."""
        return str(self.root / type(self).__name__ / "raw")

    def _read(self, name: str, rank: int) -> np.ndarray:
        folder = Path(self.raw_folder)
        for path, opener in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
            if path.exists():
                with opener(path, "rb") as file:  # type: ignore[operator]
                    return read_idx(file.read(), rank, str(path))
        raise _missing(type(self).__name__, folder, [f"{name}[.gz]"], self._source)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._apply(Image.fromarray(self._pixels[index]), self._labels[index])

    def __len__(self) -> int:
        return len(self._labels)


class FashionMNIST(MNIST):
    """Pictures of clothes (Xiao, Rasul and Vollgraf, 2017) in MNIST's format, in root/FashionMNIST/raw."""

    classes: ClassVar[list[str]] = [
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ]  # fmt: skip
    _source = "train-images-idx3-ubyte.gz etc. of Fashion-MNIST"


def read_idx(data: bytes, rank: int, name: str) -> np.ndarray:
    """The bytes of an idx file (two zero bytes, type 8, rank, big-endian sizes, values) as uint8."""
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or data[3] != rank:
        raise RuntimeError(f"{name} is not an idx file of bytes with {rank} dimensions")
    shape = tuple(np.frombuffer(data, ">u4", rank, 4).tolist())
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if values.size != np.prod(shape):
        raise RuntimeError(f"{name} is damaged: {values.size} bytes for the shape {list(shape)}")
    return values.reshape(shape).copy()


class CIFAR10(_Splits):
    """Small pictures of ten classes (Krizhevsky, 2009): 32 x 32 in colour.

    Reads the *binary version* of the original files in root/cifar-10-batches-bin (the Python version is
    pickled, and unpickling runs code). `data` is a uint8 array [n, 32, 32, 3], `targets` a list.
    Samples are (Pillow image, int). RuntimeError if files are missing or damaged.
    """

    base_folder = "cifar-10-batches-bin"
    classes: ClassVar[list[str]] = "airplane automobile bird cat deer dog frog horse ship truck".split()

    def _load(self) -> None:
        files = [f"data_batch_{i}.bin" for i in range(1, 6)] if self.train else ["test_batch.bin"]
        folder = self.root / self.base_folder
        lost = [name for name in files if not (folder / name).exists()]
        if lost:
            raise _missing(
                "CIFAR10", folder, lost, "of cifar-10-binary.tar.gz; the Python version is pickled"
            )
        records = np.concatenate([_cifar_records(folder / name) for name in files])
        self.targets: list[int] = records[:, 0].tolist()
        self.data = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._apply(Image.fromarray(self.data[index]), self.targets[index])

    def __len__(self) -> int:
        return len(self.data)


def _cifar_records(path: Path) -> np.ndarray:
    """[n, 3073] bytes: the label, then the red, green and blue planes."""
    data = np.fromfile(path, np.uint8)
    if data.size % 3073:
        raise RuntimeError(f"{path} is damaged: its size is no multiple of 3073 bytes")
    return data.reshape(-1, 3073)
