"""What character language models share: a text, training, sampling. Used by char_gpt.py and char_lstm.py.

The text is real and on every machine: the documentation strings of the running Python's standard library,
some 880,000 characters. A twentieth is held out. A model maps characters [N, L] to logits [N, L, characters].
"""

from __future__ import annotations

import argparse
import ast
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from tqdm import tqdm

import graphc
import graphc.nn.functional as F

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def documentation() -> list[str]:
    """Every documentation string in the modules of the standard library, without repeats."""
    found: dict[str, None] = {}
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, documented) else None
            if text and text.isascii():
                found[text] = None
    return list(found)


class Text:
    """Characters as numbers: the training part, the held-out part, and windows of either."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.alphabet = "\n" + "".join(map(chr, range(32, 127)))
        number = {c: i for i, c in enumerate(self.alphabet)}
        parts = documentation()
        order = np.random.default_rng(0).permutation(len(parts))
        joined = "\n\n".join(parts[i] for i in order)
        codes = np.array([number[c] for c in joined if c in number])
        self.train, self.held_out = np.split(codes, [len(codes) * 19 // 20])

    def batch(self, size: int, seed: int):
        """Random windows of the training part and the characters that follow, both [size, length]."""
        starts = np.random.default_rng(seed).integers(0, len(self.train) - self.length, size)
        return self._windows(self.train, starts)

    def held_out_batches(self, size: int):
        """The held-out part, once, in batches of one size."""
        starts = np.arange(0, len(self.held_out) - self.length, self.length)
        for i in range(0, len(starts) - size + 1, size):
            yield self._windows(self.held_out, starts[i : i + size])

    def _windows(self, codes: np.ndarray, starts: np.ndarray):
        windows = codes[starts[:, None] + np.arange(self.length + 1)]
        return graphc.from_numpy(windows[:, :-1]), graphc.from_numpy(windows[:, 1:])

    def bits_without_context(self) -> float:
        """What a model that knows only how frequent each character is would need per character."""
        share = (np.bincount(self.train, minlength=len(self.alphabet)) + 1) / (len(self.train) + 96)
        return float(-np.log2(share)[self.held_out].mean())

    def sample(self, model, start: str, count: int, temperature: float, seed: int) -> str:
        """`start`, continued by `count` characters drawn from the model's softmax(logits / temperature)."""
        rng = np.random.default_rng(seed)
        codes = [self.alphabet.index(c) for c in start]
        with graphc.no_grad():
            for _ in range(count):
                window = codes[-self.length :]
                padded = np.zeros((1, self.length), np.int64)  # one shape, so one program
                padded[0, : len(window)] = window
                logits = model(graphc.from_numpy(padded))[0, len(window) - 1].numpy()
                chance = np.exp((logits - logits.max()) / temperature, dtype=np.float64)
                codes.append(int(rng.choice(len(chance), p=chance / chance.sum())))
        return "".join(self.alphabet[i] for i in codes)


def bits(model, batch) -> graphc.Tensor:
    """Mean cross entropy of a batch in bits per character."""
    x, y = batch
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten()) / math.log(2)


def evaluate(model, text: Text, batch_size: int) -> float:
    """Bits per character of the held-out text."""
    model.eval()
    with graphc.no_grad():
        losses = [bits(model, batch).item() for batch in text.held_out_batches(batch_size)]
    model.train()
    return float(np.mean(losses))


def plot(history: dict[str, list], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    axes.plot(history["loss"], linewidth=0.6, alpha=0.6, label="training")
    axes.plot(*zip(*history["held out"], strict=True), "o-", label="held out")
    axes.set(xlabel="step", ylabel="bits per character")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def arguments(description: str, **defaults) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=250, help="steps between evaluations and checkpoints")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128, help="characters a model sees at once")
    parser.add_argument("--lr", type=float, default=defaults["lr"])
    parser.add_argument("--width", type=int, default=defaults["width"])
    parser.add_argument("--depth", type=int, default=defaults["depth"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", default="Return the ", help="what sampled text starts with")
    parser.add_argument("--sample", type=int, default=400, metavar="N", help="characters to sample")
    parser.add_argument("--temperature", type=float, default=0.8, help="below 1: likelier characters")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--plot", action="store_true", help="write the learning curves to --out")
    parser.add_argument(
        "--compile", action="store_true", help="compile the training step with graphc.compile"
    )
    parser.add_argument("--out", type=Path, default=defaults["out"], help="folder for checkpoint and plot")
    return parser.parse_args()


def run(args: argparse.Namespace, make: Callable[[int], graphc.nn.Module]) -> None:
    """Train `make(number of characters)`, then report and sample."""
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.safetensors"
    text = Text(args.length)
    graphc.manual_seed(args.seed)
    model = make(len(text.alphabet))
    optimizer = graphc.optim.AdamW(model.parameters(), lr=args.lr)
    rate = graphc.optim.lr_scheduler.LambdaLR(  # rises, then falls with the root of the step
        optimizer, lambda step: min((step + 1) / 100, (100 / (step + 1)) ** 0.5)
    )
    history: dict[str, list] = {"loss": [], "held out": []}
    if args.resume:
        saved = graphc.load(checkpoint)
        for part, state in ((model, "model"), (optimizer, "optimizer"), (rate, "rate")):
            part.load_state_dict(saved[state])
        history = saved["history"]

    def train_step(x, y):
        optimizer.zero_grad()
        loss = bits(model, (x, y))
        loss.backward()
        optimizer.step()
        return loss

    step = graphc.compile(train_step) if args.compile else train_step
    seconds: list[float] = []
    first = len(history["loss"])
    progress = tqdm(range(first, args.steps), initial=first, total=args.steps, desc=args.out.name)
    for i in progress:
        batch = text.batch(args.batch_size, seed=i)  # of its own for each step, also after a resume
        begin = time.perf_counter()
        history["loss"].append(step(*batch).item())
        seconds.append(time.perf_counter() - begin)
        rate.step()
        if (i + 1) % args.every == 0 or i + 1 == args.steps:
            history["held out"].append((i + 1, evaluate(model, text, args.batch_size)))
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            graphc.save({**states, "rate": rate.state_dict(), "history": history}, checkpoint)
        shown = history["held out"][-1][1] if history["held out"] else math.nan
        progress.set_postfix(bits=f"{history['loss'][-1]:.3f}", held_out=f"{shown:.3f}")

    if args.plot:
        plot(history, args.out / "curves.png")
        print(f"plot {args.out / 'curves.png'}")
    print(text.sample(model.eval(), args.start, args.sample, args.temperature, args.seed))
    print(
        f"\nheld-out text: bits per character {history['held out'][-1][1]:.4f} "
        f"(without any context {text.bits_without_context():.2f}), last training loss "
        f"{history['loss'][-1]:.6f}"
    )
    if seconds:
        speed = args.batch_size * args.length / np.median(seconds)
        print(f"{1e3 * np.median(seconds):.1f} ms per step, {speed:,.0f} characters per second")
    print(f"checkpoint {checkpoint}")
