"""Programs whose results are compared bit by bit between processes.

    python -m tests.native.workloads

runs them all and prints, as JSON, for each: a hash of every bit of its results, and a few of the numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import graphc
from graphc import nn, pipeline, program_cache
from graphc.nn import functional as F

STEPS = 5
Result = dict[str, Any]


def result(arrays: Iterable[np.ndarray], numbers: Iterable[float]) -> Result:
    """The hash of arrays, and numbers for comparison within a tolerance."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return {"hash": total.hexdigest(), "numbers": [float(x) for x in numbers]}


class DigitsNet(nn.Module):
    """The digits example's layers, narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.drop1, self.drop2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.hidden, self.out = nn.Linear(32 * 16, 64), nn.Linear(64, 10)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        x = self.norm1(self.conv1(x)).relu()
        x = self.drop1(F.max_pool2d(self.norm2(self.conv2(x)).relu(), 2))
        return self.out(self.drop2(self.hidden(x.flatten(1)).relu()))


class RowNet(nn.Module):
    """LayerNorm, softmax over rows, GELU: chains of row reductions, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(96, 160), nn.Linear(96, 160)
        self.norm, self.out = nn.LayerNorm(160), nn.Linear(160, 10)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        weights = self.query(x).softmax(-1)
        return self.out(F.gelu(self.norm(weights * self.value(x))))


class SequenceNet(nn.Module):
    """Numbers as words: a table, an LSTM over lengths in both directions, a GRU; its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, 48)
        self.lstm = nn.LSTM(48, 80, num_layers=2, bidirectional=True, dropout=0.2, batch_first=True)
        self.gru, self.out = nn.GRU(160, 72, batch_first=True), nn.Linear(72, 10)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        words = (x * 99).abs().long().clamp(max=499)
        lengths = [20 - i % 7 for i in range(len(words))]
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(words), lengths, True, enforce_sorted=False)
        _, last = self.gru(nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], True)[0])
        return self.out(last[0])


def train(model: nn.Module, optimizer: Any, shape: tuple[int, ...], compiled: bool) -> Result:
    """STEPS steps on made-up batches: the losses, all parameters, buffers and optimizer state."""
    criterion = nn.CrossEntropyLoss()

    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = graphc.compile(step) if compiled else step
    rng = np.random.default_rng(1)
    graphc.manual_seed(11)
    losses = []
    for _ in range(STEPS):
        x = graphc.from_numpy(rng.standard_normal(shape).astype(np.float32))
        y = graphc.from_numpy(rng.integers(0, 10, shape[0]))
        losses.append(run(x, y).item())
    state = [t.numpy() for t in model.state_dict().values()]
    for moments in optimizer.state_dict()["state"].values():
        state += [
            np.asarray(moments[key].numpy()) for key in sorted(moments) if hasattr(moments[key], "numpy")
        ]
    assert len(state) > len(list(model.parameters()))
    return result([np.array(losses), *state], losses)


def digits(compiled: bool) -> Result:
    graphc.manual_seed(0)
    model = DigitsNet()
    return train(model, graphc.optim.AdamW(model.parameters(), lr=3e-3), (64, 1, 8, 8), compiled)


def rows() -> Result:
    graphc.manual_seed(0)
    model = RowNet()
    return train(model, graphc.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), (300, 96), True)


def sequences(compiled: bool) -> Result:
    graphc.manual_seed(0)
    model = SequenceNet()
    return train(model, graphc.optim.Adam(model.parameters(), lr=3e-3), (33, 20), compiled)


def operand(seed: int, *shape: int) -> graphc.Tensor:
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return graphc.from_numpy(array).requires_grad_()


def with_gradients(function: Callable[..., graphc.Tensor], *operands: graphc.Tensor) -> Result:
    """A compiled function's value and gradients."""

    def both(*xs: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        y = function(*xs)
        return (y, *graphc.autograd.grad((y * y).sum(), xs))

    found = [t.detach().numpy() for t in graphc.compile(both)(*operands)]
    return result(found, [np.abs(array).mean() for array in found])


def matmul() -> Result:
    return with_gradients(lambda a, b: a @ b, operand(1, 515, 387), operand(2, 387, 601))


def conv() -> Result:
    return with_gradients(
        lambda x, w: F.conv2d(x, w, stride=2, padding=1), operand(3, 6, 24, 37, 37), operand(4, 40, 24, 3, 3)
    )


WORKLOADS: dict[str, Callable[[], Result]] = {
    "digits": lambda: digits(True),
    "digits, lazily": lambda: digits(False),
    "rows": rows,
    "sequences": lambda: sequences(True),
    "sequences, lazily": lambda: sequences(False),
    "matmul": matmul,
    "conv": conv,
}


def main() -> None:
    lowered = 0
    lower = pipeline.lower

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal lowered
        lowered += 1
        return lower(*args, **kwargs)

    pipeline.lower = counted
    results = {name: work() for name, work in WORKLOADS.items()}
    compiler = program_cache.compiler_digest()
    print(json.dumps({"lowered": lowered, "compiler": compiler, "results": results}))


if __name__ == "__main__":
    main()
