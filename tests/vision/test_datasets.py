"""Readers of original files, on small files in the same formats."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from graphc.utils.data import DataLoader  # noqa: E402
from graphc.vision import datasets, transforms  # noqa: E402

RNG = np.random.default_rng(0)


def write_idx(path, values, opener=open):
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    with opener(path, "wb") as file:
        file.write(header + values.tobytes())


@pytest.mark.parametrize("opener, suffix", [(open, ""), (gzip.open, ".gz")])
@pytest.mark.parametrize("kind", ["MNIST", "FashionMNIST"])
def test_idx_files(tmp_path, kind, opener, suffix):
    raw = tmp_path / kind / "raw"
    raw.mkdir(parents=True)
    pixels = RNG.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    labels = RNG.integers(0, 10, 5, dtype=np.uint8)
    write_idx(raw / f"train-images-idx3-ubyte{suffix}", pixels, opener)
    write_idx(raw / f"train-labels-idx1-ubyte{suffix}", labels, opener)
    data = getattr(datasets, kind)(
        tmp_path, train=True, transform=transforms.ToTensor(), target_transform=str
    )
    assert len(data) == 5
    image, target = data[2]
    np.testing.assert_array_equal(image.numpy()[0], pixels[2].astype(np.float32) / 255)
    assert target == str(labels[2])
    np.testing.assert_array_equal(data.data.numpy(), pixels)
    assert data.targets.tolist() == labels.tolist()
    assert len(data.classes) == 10
    assert data.class_to_idx[data.classes[3]] == 3
    assert f"Dataset {kind}\n    Number of datapoints: 5" in repr(data)
    assert "Split: Train" in repr(data)
    with pytest.raises(RuntimeError, match="t10k-images"):
        getattr(datasets, kind)(tmp_path, train=False)


def test_damaged_idx_files(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(RuntimeError, match="not an idx file"):
        datasets.MNIST(tmp_path)
    write_idx(path, RNG.integers(0, 256, (2, 28, 28), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match="damaged"):
        datasets.MNIST(tmp_path)


def test_cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    records = [RNG.integers(0, 10, (3, 3073), dtype=np.uint8) for _ in range(6)]
    for name, r in zip(
        [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"], records, strict=True
    ):
        (folder / name).write_bytes(r.tobytes())
    data = datasets.CIFAR10(tmp_path, transform=transforms.ToTensor())
    assert len(data) == 15
    image, target = data[4]
    assert target == records[1][1, 0]
    np.testing.assert_array_equal(np.rint(image.numpy() * 255).ravel(), records[1][1, 1:])
    assert data.data.shape == (15, 32, 32, 3)
    assert len(datasets.CIFAR10(tmp_path, train=False)) == 3
    batch, targets = next(iter(DataLoader(data, batch_size=4)))
    assert tuple(batch.shape) == (4, 3, 32, 32)
    assert targets.tolist() == data.targets[:4]
    (folder / "data_batch_2.bin").write_bytes(b"123")
    with pytest.raises(RuntimeError, match="damaged"):
        datasets.CIFAR10(tmp_path)
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(RuntimeError, match="cifar-10-binary"):
        datasets.CIFAR10(tmp_path)


def test_image_folder(tmp_path):
    for name in ("dog", "cat"):
        (tmp_path / name / "more").mkdir(parents=True)
        for i, sub in enumerate((".", "more")):
            Image.new("L", (3, 2), 50 * i).save(tmp_path / name / sub / f"{i}.png")
        (tmp_path / name / "notes.txt").write_text("no picture")
    data = datasets.ImageFolder(tmp_path, transform=transforms.ToTensor())
    assert data.classes == ["cat", "dog"]
    assert data.class_to_idx == {"cat": 0, "dog": 1}
    assert data.targets == [0, 0, 1, 1]
    assert data.imgs is data.samples
    image, target = data[3]
    assert tuple(image.shape) == (3, 2, 3)
    assert target == 1
    assert image.max().item() == pytest.approx(50 / 255)
    texts = datasets.ImageFolder(
        tmp_path, loader=lambda p: Path(p).read_text(), is_valid_file=lambda p: p.endswith(".txt")
    )
    assert texts[0] == ("no picture", 0)
    (tmp_path / "bird").mkdir()
    with pytest.raises(FileNotFoundError, match="bird"):
        datasets.ImageFolder(tmp_path)
    assert len(datasets.ImageFolder(tmp_path, allow_empty=True)) == 4
    with pytest.raises(FileNotFoundError, match="class folder"):
        datasets.ImageFolder(tmp_path / "bird")


def test_transforms_of_both():
    class Two(datasets.VisionDataset):
        def __getitem__(self, index):
            return self._apply(index, -index)

        def __len__(self):
            return 2

    assert Two(".", transforms=lambda x, y: (y, x))[1] == (-1, 1)
    with pytest.raises(ValueError, match="Only transforms"):
        Two(".", transforms=lambda x, y: (y, x), transform=abs)
