"""Train a small convolutional network on real handwritten digits.

The 1,797 8x8 digits that scikit-learn ships (UCI "Optical Recognition of Handwritten Digits").
A fifth is held out as the test set and never looked at until the end; a tenth of the rest chooses the
best epoch. Writes the best checkpoint, and a PNG with the learning curves and the confusion matrix.

    python examples/digits_cnn.py --compile
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from tqdm import tqdm

import graphc
from graphc import nn
from graphc.utils.data import DataLoader, Subset, TensorDataset

matplotlib.use("Agg")
import matplotlib.pyplot as plt


class DigitsCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        )

    def forward(self, x):
        return self.classifier(self.features(x))


def load_data(seed: int):
    """The whole data set, and three disjoint index lists: train, validation, test."""
    digits = load_digits()
    images = graphc.from_numpy((digits.images[:, None] / 16.0).astype(np.float32))
    labels = graphc.from_numpy(digits.target.astype(np.int64))
    order = np.random.default_rng(seed).permutation(len(digits.target))
    test, rest = np.split(order, [len(order) // 5])
    validation, train = np.split(rest, [len(rest) // 10])
    return TensorDataset(images, labels), train, validation, test


def predict(model, dataset, indices, batch_size: int = 360):
    """Logits and labels, as NumPy arrays, of the samples at `indices`."""
    model.eval()
    logits, labels = [], []
    with graphc.no_grad():
        for x, y in DataLoader(Subset(dataset, indices.tolist()), batch_size=batch_size):
            logits.append(model(x).numpy())
            labels.append(y.numpy())
    model.train()
    return np.concatenate(logits), np.concatenate(labels)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(1) == labels).mean())


def plot(history: dict[str, list[float]], matrix: np.ndarray, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    left.plot(history["loss"], label="training loss")
    left.set(xlabel="epoch", ylabel="loss", yscale="log")
    twin = left.twinx()
    twin.plot(history["accuracy"], color="tab:orange", label="validation accuracy")
    twin.set(ylabel="accuracy", ylim=(0.8, 1.005))
    lines = left.get_lines() + twin.get_lines()
    left.legend(lines, [line.get_label() for line in lines], loc="center right")
    right.imshow(matrix, cmap="Blues")
    right.set(xlabel="predicted", ylabel="true", xticks=range(10), yticks=range(10), title="test set")
    for (i, j), count in np.ndenumerate(matrix):
        if count:
            right.text(j, i, count, ha="center", va="center", color="white" if count > 15 else "black")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compile", action="store_true", help="compile the training step with graphc.compile"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/digits"), help="folder for checkpoint and plot"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "best.safetensors"

    graphc.manual_seed(args.seed)
    dataset, train, validation, test = load_data(args.seed)
    loader = DataLoader(Subset(dataset, train.tolist()), args.batch_size, shuffle=True, drop_last=True)
    model = DigitsCNN()
    criterion = nn.CrossEntropyLoss()
    optimizer = graphc.optim.AdamW(model.parameters(), lr=args.lr)
    scheduler = graphc.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)

    def train_step(x, y):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step = graphc.compile(train_step) if args.compile else train_step
    history: dict[str, list[float]] = {"loss": [], "accuracy": []}
    step_seconds, compiled, calls = [], graphc.compilations(), 0
    best = -1.0
    progress = tqdm(range(args.epochs), desc="digits", unit="epoch")
    for _ in progress:
        losses = []
        for x, y in loader:
            before, begin = graphc.native_calls(), time.perf_counter()
            losses.append(step(x, y).item())
            step_seconds.append(time.perf_counter() - begin)
            calls += graphc.native_calls() - before
        scheduler.step()
        history["loss"].append(float(np.mean(losses)))
        history["accuracy"].append(accuracy(*predict(model, dataset, validation)))
        if history["accuracy"][-1] >= best:
            best = history["accuracy"][-1]
            graphc.save(model.state_dict(), checkpoint)
        progress.set_postfix(loss=f"{history['loss'][-1]:.4f}", accuracy=f"{history['accuracy'][-1]:.4f}")

    model.load_state_dict(graphc.load(checkpoint))
    logits, labels = predict(model, dataset, test)
    plot(history, confusion_matrix(labels, logits.argmax(1)), args.out / "digits.png")
    print(f"checkpoint {checkpoint}, plot {args.out / 'digits.png'}")
    print(
        f"test accuracy {accuracy(logits, labels):.4f}, {1e3 * np.median(step_seconds):.2f} ms per step, "
        f"first step {step_seconds[0]:.2f} s, {calls / len(step_seconds):g} native calls per step, "
        f"{graphc.compilations() - compiled} compilations"
    )


if __name__ == "__main__":
    main()
