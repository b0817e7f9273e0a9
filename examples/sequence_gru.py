"""A GRU over sequences: the tutorials' batch of shape (8, 200, 64), then a forecast of a physical process.

1. 64 random signals of 200 steps; the target of each step is a leaky sum of one hidden mixture of them, so
   that a good answer needs memory. New signals at every training step.
2. Lorenz's equations of thermal convection (a fluid heated from below; sigma 10, rho 28, beta 8/3),
   integrated with Runge-Kutta and observed through noise: one number, the speed of the roll, every 0.02 units
   of time. The GRU forecasts it 25 steps ahead; on the last fifth of the series it is compared with the two
   usual references, the present value and a linear regression on the last 64 values.

    python examples/sequence_gru.py --compile --plot convection.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
from tqdm import tqdm

import graphc
from graphc import nn

matplotlib.use("Agg")
import matplotlib.pyplot as plt

AHEAD, WINDOW, WARM_UP = 25, 200, 50  # steps; forecasts before the state has warmed up do not count


class SequenceGRU(nn.Module):
    """[batch, steps, features] -> a number for each step, [batch, steps, 1]."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x):
        out, _ = self.gru(x)
        return self.head(out)


def signals(rng: np.random.Generator, mixture: np.ndarray) -> tuple[graphc.Tensor, graphc.Tensor]:
    """A batch (8, 200, 64) and its targets (8, 200, 1)."""
    x = rng.standard_normal((8, 200, 64), dtype=np.float32)
    drive, y = np.tanh(x @ mixture), np.zeros((8, 200, 1), np.float32)
    for step in range(200):
        y[:, step, 0] = 0.9 * (y[:, step - 1, 0] if step else 0) + 0.3 * drive[:, step]
    return graphc.from_numpy(x), graphc.from_numpy(y)


def convection(count: int, noise: float, seed: int) -> np.ndarray:
    """`count` noisy observations, float32, of mean 0 and spread 1."""

    def change(s: np.ndarray) -> np.ndarray:
        x, y, z = s
        return np.array([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z])

    dt, state = 0.01, np.array([1.0, 1.0, 20.0])
    seen = []
    for step in range(2 * (count + 500)):  # the first 500 lead onto the attractor
        k1 = change(state)
        k2 = change(state + dt / 2 * k1)
        k3 = change(state + dt / 2 * k2)
        k4 = change(state + dt * k3)
        state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        if step % 2:
            seen.append(state[0])
    series = np.array(seen[500:])
    series = (series - series.mean()) / series.std()
    return (series + noise * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def windows(series: np.ndarray, starts: np.ndarray) -> tuple[graphc.Tensor, graphc.Tensor]:
    """Observations [batch, WINDOW, 1] from `starts`, and what each will be AHEAD steps later."""
    at = starts[:, None] + np.arange(WINDOW)
    return graphc.from_numpy(series[at][..., None]), graphc.from_numpy(series[at + AHEAD][..., None])


def spread_of_errors(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(((found - wanted) ** 2).mean()))


def references(series: np.ndarray, cut: int, starts: np.ndarray) -> tuple[float, float]:
    """Errors, where the GRU's count, of the present value and of a regression fitted before `cut`."""
    lags = 64
    history = np.lib.stride_tricks.sliding_window_view(series, lags)  # row i ends at i + lags - 1
    fitted = np.arange(0, cut - lags - AHEAD)
    weights, *_ = np.linalg.lstsq(history[fitted], series[fitted + lags - 1 + AHEAD], rcond=None)
    at = (starts[:, None] + np.arange(max(WARM_UP, lags), WINDOW)).ravel()
    wanted = series[at + AHEAD]
    return spread_of_errors(series[at], wanted), spread_of_errors(history[at - lags + 1] @ weights, wanted)


class Trainer:
    """A model, Adam, and the training step of them."""

    def __init__(self, features: int, hidden: int, lr: float, compiled: bool, skip: int = 0) -> None:
        self.model = SequenceGRU(features, hidden)
        self.optimizer = graphc.optim.Adam(self.model.parameters(), lr=lr)
        self.criterion, self.skip = nn.MSELoss(), skip
        self.step = graphc.compile(self.plain) if compiled else self.plain
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def plain(self, x, y):
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(x)[:, self.skip :], y[:, self.skip :])
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss

    def run(self, steps: int, title: str, batch) -> None:
        """`steps` training steps on what `batch()` gives."""
        progress = tqdm(range(steps), desc=title, unit="step")
        for _ in progress:
            x, y = batch()
            begin = time.perf_counter()
            self.losses.append(self.step(x, y).item())
            self.seconds.append(time.perf_counter() - begin)
            progress.set_postfix(loss=f"{self.losses[-1]:.4f}", refresh=False)


def plot(losses: list[float], wanted: np.ndarray, found: np.ndarray, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.plot(losses)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    gap = ((0, 0), (0, 10))  # between windows, which do not follow each other
    for values, label in ((wanted, "observed"), (found, f"forecast {AHEAD} steps before")):
        right.plot(np.pad(values, gap, constant_values=np.nan).ravel(), label=label, linewidth=1)
    right.set(xlabel="step", ylabel="speed of the roll", title="convection, held out")
    right.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500, help="training steps of each part")
    parser.add_argument("--count", type=int, default=20000, help="observations of the convection")
    parser.add_argument("--noise", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile the training step")
    parser.add_argument("--plot", type=Path, help="write a PNG of losses and forecasts here")
    args = parser.parse_args()

    graphc.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    mixture = rng.standard_normal(64).astype(np.float32) / 8
    first = Trainer(64, 32, 3e-3, args.compile)
    first.run(args.steps, "signals", lambda: signals(rng, mixture))
    x, y = signals(rng, mixture)
    with graphc.no_grad():
        rest = nn.functional.mse_loss(first.model(x), y).item() / y.var().item()
    print(
        f"signals (8, 200, 64): unexplained part {rest:.4f} of the variance of new signals, "
        f"{1e3 * np.median(first.seconds):.2f} ms per step"
    )

    series = convection(args.count, args.noise, args.seed)
    cut = args.count * 4 // 5
    second = Trainer(1, 48, 5e-3, args.compile, WARM_UP)
    last_start = cut - WINDOW - AHEAD
    second.run(args.steps, "convection", lambda: windows(series, rng.integers(0, last_start, 32)))
    starts = np.arange(cut, args.count - WINDOW - AHEAD, WINDOW)
    x, y = windows(series, starts)
    with graphc.no_grad():
        found = second.model(x).numpy()[:, WARM_UP:, 0]
    wanted = y.numpy()[:, WARM_UP:, 0]
    present, linear = references(series, cut, starts)
    if args.plot:
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(second.losses, wanted[:5], found[:5], args.plot)
    print(
        f"convection: error of the forecast {spread_of_errors(found, wanted):.3f}, of a linear regression "
        f"{linear:.3f}, of the present value {present:.3f}; {1e3 * np.median(second.seconds):.2f} ms per step"
    )


if __name__ == "__main__":
    main()
