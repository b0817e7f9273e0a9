"""Train a ResNet-18 on CIFAR-10, or on images it makes itself.

With --data FOLDER it reads the original files (the "binary version": data_batch_1.bin ... test_batch.bin,
as distributed by Alex Krizhevsky). Without, it draws coloured shapes on noise, ten classes, and says so.

    python examples/resnet_cifar.py --compile --data cifar-10-batches-bin
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import graphc
import graphc.nn.functional as F
from graphc import nn
from graphc.utils.data import DataLoader, TensorDataset


class BasicBlock(nn.Module):
    def __init__(self, in_planes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet18(nn.Module):
    """He et al., "Deep Residual Learning for Image Recognition", with the 3x3 stem used on CIFAR-10."""

    def __init__(self, classes: int = 10, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks, planes = [], width
        for stage in range(4):
            for i in range(2):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(BasicBlock(planes, width << stage, stride))
                planes = width << stage
        self.layers = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(planes, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.pool(self.layers(x))
        return self.fc(graphc.flatten(x, 1))


def read_cifar(folder: Path):
    """(images, labels) of the training and the test files."""

    def read(names: list[str]):
        missing = [n for n in names if not (folder / n).is_file()]
        if missing:
            raise SystemExit(f"{folder} lacks {', '.join(missing)}: expected CIFAR-10's binary version")
        records = np.concatenate([np.fromfile(folder / n, np.uint8).reshape(-1, 3073) for n in names])
        return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)

    return read([f"data_batch_{i}.bin" for i in range(1, 6)]), read(["test_batch.bin"])


def draw_shapes(count: int, rng: np.random.Generator):
    """Ten classes of 32x32 images: five shapes, filled or as an outline, of any colour, on noise."""
    ys, xs = np.mgrid[0:32, 0:32]
    images = rng.integers(0, 96, (count, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, count)
    for image, label in zip(images, labels, strict=True):
        cx, cy = rng.uniform(11, 21, 2)
        radius = rng.uniform(6, 10)
        dx, dy = np.abs(xs - cx), np.abs(ys - cy)
        distance = (
            np.hypot(dx, dy),  # disc
            np.maximum(dx, dy) * 1.2,  # square
            dx + dy,  # diamond
            np.maximum(dx * 2.5, dy),  # upright bar
            np.minimum(np.maximum(dx * 3, dy), np.maximum(dx, dy * 3)),  # cross
        )[label % 5]
        inside = distance < radius
        if label >= 5:
            inside &= distance > radius - 2.5
        image[:, inside] = rng.integers(128, 256, (3, 1), dtype=np.uint8)
    return images, labels.astype(np.int64)


def normalise(images: np.ndarray) -> np.ndarray:
    scaled = images.astype(np.float32) / 255.0
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32)[:, None, None]
    deviation = np.array([0.2470, 0.2435, 0.2616], np.float32)[:, None, None]
    return (scaled - mean) / deviation


def loader_of(images: np.ndarray, labels: np.ndarray, batch_size: int, train: bool) -> DataLoader:
    dataset = TensorDataset(graphc.from_numpy(normalise(images)), graphc.from_numpy(labels))
    return DataLoader(dataset, batch_size, shuffle=train, drop_last=train)


def evaluate(model, loader) -> float:
    model.eval()
    right = total = 0
    with graphc.no_grad():
        for x, y in loader:
            right += (model(x).argmax(dim=1) == y).sum().item()
            total += len(y)
    model.train()
    return right / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10's binary files")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, help="stop each epoch after this many steps")
    parser.add_argument("--samples", type=int, default=3200, help="training images to draw without --data")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compile", action="store_true", help="compile the training step with graphc.compile"
    )
    args = parser.parse_args()

    graphc.manual_seed(args.seed)
    if args.data:
        train, test = read_cifar(args.data)
        print(f"CIFAR-10 from {args.data}: {len(train[1])} training and {len(test[1])} test images")
    else:
        rng = np.random.default_rng(args.seed)
        train, test = draw_shapes(args.samples, rng), draw_shapes(640, rng)
        print(f"no --data given: {args.samples} drawn images of ten shapes instead of CIFAR-10")
    train_loader = loader_of(*train, args.batch_size, train=True)
    test_loader = loader_of(*test, args.batch_size, train=False)

    model = ResNet18(width=args.width)
    criterion = nn.CrossEntropyLoss()
    optimizer = graphc.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    scheduler = graphc.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)

    def train_step(x, y):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step = graphc.compile(train_step) if args.compile else train_step
    steps = min(args.steps or len(train_loader), len(train_loader))
    step_seconds: list[float] = []
    for epoch in range(args.epochs):
        progress = tqdm(zip(range(steps), train_loader, strict=False), total=steps, desc=f"epoch {epoch}")
        for _, (x, y) in progress:
            begin = time.perf_counter()
            loss = step(x, y).item()
            step_seconds.append(time.perf_counter() - begin)
            progress.set_postfix(loss=f"{loss:.4f}")
        scheduler.step()
    print(
        f"test accuracy {evaluate(model, test_loader):.4f}, last loss {loss:.4f}, "
        f"{1e3 * np.median(step_seconds):.1f} ms per step, first step {step_seconds[0]:.2f} s"
    )


if __name__ == "__main__":
    main()
