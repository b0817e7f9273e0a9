"""Separate two rings of points with a 2-4-8-1 network, focal loss and hand-written penalties.

4,000 points, 2,000 on each of two noisy rings; a quarter is held out. The loss is the focal loss
(Lin et al., "Focal Loss for Dense Object Detection", 2017) plus L1 and L2 penalties on the weights.
Prints the held-out AUC and writes a PNG of the decision surface.

    python examples/circles.py --compile
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

import graphc
import graphc.nn.functional as F
from graphc import nn
from graphc.utils.data import DataLoader, TensorDataset, random_split

matplotlib.use("Agg")
import matplotlib.pyplot as plt


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2, 4)
        self.fc2 = nn.Linear(4, 8)
        self.fc3 = nn.Linear(8, 1)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return graphc.sigmoid(self.fc3(x))


def focal_loss(probability, target, gamma: float = 2.0, alpha: float = 0.75):
    cross_entropy = F.binary_cross_entropy(probability, target, reduction="none")
    right = target * probability + (1 - target) * (1 - probability)
    weight = target * alpha + (1 - target) * (1 - alpha)
    return (weight * (1.0 - right) ** gamma * cross_entropy).mean()


def penalties(model, l1: float, l2: float):
    """L1 and L2 norms of the weights (biases are left alone)."""
    total = graphc.tensor(0.0)
    for name, parameter in model.named_parameters():
        if "bias" not in name:
            total = total + l1 * parameter.abs().sum() + l2 * (parameter**2).sum()
    return total


def make_rings(n: int):
    """n points on a ring of radius 5 (class 1) and n on one of radius 8 (class 0), noise 1."""

    def ring(radius: float):
        r = radius + graphc.normal(0.0, 1.0, size=(n, 1))
        angle = 2 * np.pi * graphc.rand(n, 1)
        return graphc.cat([r * graphc.cos(angle), r * graphc.sin(angle)], dim=1)

    points = graphc.cat([ring(5.0), ring(8.0)], dim=0)
    labels = graphc.cat([graphc.ones(n, 1), graphc.zeros(n, 1)], dim=0)
    return points, labels


def plot(model, points: np.ndarray, labels: np.ndarray, path: Path) -> None:
    axis = np.linspace(-12, 12, 200, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    with graphc.no_grad():
        surface = model(graphc.from_numpy(grid)).numpy().reshape(200, 200)
    figure, axes = plt.subplots(figsize=(6, 5))
    filled = axes.contourf(axis, axis, surface, levels=20, cmap="RdBu", alpha=0.6, vmin=0, vmax=1)
    for value, color in ((1, "tab:blue"), (0, "tab:red")):
        axes.scatter(*points[labels[:, 0] == value].T, s=3, color=color, label=f"class {value}")
    figure.colorbar(filled, label="predicted probability of class 1")
    axes.legend(loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--l1", type=float, default=1e-4)
    parser.add_argument("--l2", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compile", action="store_true", help="compile the training step with graphc.compile"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/circles"), help="folder for the plot")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    graphc.manual_seed(args.seed)
    points, labels = make_rings(2000)
    train, test = random_split(TensorDataset(points, labels), [3000, 1000])
    loader = DataLoader(train, args.batch_size, shuffle=True)
    model = Net()
    optimizer = graphc.optim.Adam(model.parameters(), lr=0.01)

    def train_step(x, y):
        optimizer.zero_grad()
        loss = focal_loss(model(x), y) + penalties(model, args.l1, args.l2)
        loss.backward()
        optimizer.step()
        return loss

    step = graphc.compile(train_step) if args.compile else train_step
    step_seconds: list[float] = []
    progress = tqdm(range(args.epochs), desc="circles", unit="epoch")
    for _ in progress:
        losses = []
        for x, y in loader:
            begin = time.perf_counter()
            losses.append(step(x, y).item())
            step_seconds.append(time.perf_counter() - begin)
        progress.set_postfix(loss=f"{np.mean(losses):.4f}")

    model.eval()
    x, y = next(iter(DataLoader(test, len(test))))
    with graphc.no_grad():
        probability = model(x).numpy()
    plot(model, points.numpy(), labels.numpy(), args.out / "circles.png")
    print(f"plot {args.out / 'circles.png'}")
    print(
        f"test AUC {roc_auc_score(y.numpy(), probability):.4f}, final training loss {np.mean(losses):.4f}, "
        f"{1e3 * np.median(step_seconds):.3f} ms per step"
    )


if __name__ == "__main__":
    main()
