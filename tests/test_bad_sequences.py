"""Mistakes with sequences: each is refused with a message that says what and where, and changes nothing.

A tagger over sentences of several lengths is trained, lazily and compiled; then it gets a wrong batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

HERE = Path(__file__).name
WORDS, STEPS, BATCH = 20, 6, 3


def place(mark: str) -> str:
    """`file:line` of the line of this file that ends in the comment `# <mark>`."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    return f"{HERE}:{number}"


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, 4)
        self.lstm = nn.LSTM(8, 8)

    def forward(self, words: graphc.Tensor, lengths: graphc.Tensor, h: graphc.Tensor) -> graphc.Tensor:
        x = self.embed(words)  # table
        packed = pack_padded_sequence(x, lengths)  # packing
        out, _ = self.lstm(packed, (h, h))  # layer
        return self.head(pad_packed_sequence(out, total_length=len(words))[0])


def tensor(array: Any) -> graphc.Tensor:
    return graphc.from_numpy(np.array(array))


GOOD = {
    "words": np.random.default_rng(0).integers(0, WORDS, (STEPS, BATCH)),
    "lengths": np.array([6, 4, 2]),
    "h": np.zeros((1, BATCH, 8), np.float32),
}


class Training:
    def __init__(self, compiled: bool) -> None:
        graphc.manual_seed(0)
        self.model = Tagger()
        self.optimizer = graphc.optim.Adam(self.model.parameters(), lr=1e-2)
        self.step = graphc.compile(self.plain) if compiled else self.plain

    def plain(self, words: graphc.Tensor, lengths: graphc.Tensor, h: graphc.Tensor) -> graphc.Tensor:
        self.optimizer.zero_grad()
        loss = self.model(words, lengths, h).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss

    def run(self, **changed: Any) -> float:
        return self.step(**{k: tensor(v) for k, v in {**GOOD, **changed}.items()}).item()

    def state(self) -> list[np.ndarray]:
        found = [p.detach().numpy().copy() for p in self.model.parameters()]
        moments = self.optimizer.state_dict()["state"].values()
        return found + [np.array(m[k].numpy()) for m in moments for k in sorted(m)]


TOO_LONG, OUT_OF_ORDER, ZERO = [7, 3, 1], [3, 4, 1], [6, 4, 0]
# What is changed, the error lazily and compiled (where lengths are data), the place, parts of the message.
MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], type[Exception], str, list[str]]] = {
    "word": (
        {"words": np.full((STEPS, BATCH), WORDS)},
        *(IndexError, IndexError, "table"),
        ["embedding: index is out of bounds", "less than 20", "got 20", "in Tagger.embed"],
    ),
    "negative word": (
        {"words": GOOD["words"] - WORDS},
        *(IndexError, IndexError, "table"),
        ["embedding: index is out of bounds", "got -", "in Tagger.embed"],
    ),
    "words of floats": (
        {"words": GOOD["words"].astype(np.float32)},
        *(RuntimeError, RuntimeError, "table"),
        ["Long, Int; but got", "in Tagger.embed"],
    ),
    "length": (
        {"lengths": TOO_LONG},
        *(RuntimeError, IndexError, "packing"),
        ["pack_padded_sequence", "the 6 steps of the input|at most 6", "7"],
    ),
    "order of lengths": (
        {"lengths": OUT_OF_ORDER},
        *(RuntimeError, IndexError, "packing"),
        ["sorted in decreasing order", "enforce_sorted=False"],
    ),
    "no length": ({"lengths": ZERO}, RuntimeError, IndexError, "packing", ["greater than 0|at least 1", "0"]),
    "number of lengths": (
        {"lengths": [6, 4]},
        *(RuntimeError, RuntimeError, "packing"),
        ["Expected `len(lengths)` to be equal to batch_size, but got 2 (batch_size=3)", "in Tagger"],
    ),
    "no steps": (
        {"words": np.zeros((0, BATCH), np.int64)},
        *(RuntimeError, RuntimeError, "packing"),
        ["Cannot pack empty tensors", "in Tagger"],
    ),
    "state": (
        {"h": np.zeros((2, BATCH, 8), np.float32)},
        *(RuntimeError, RuntimeError, "layer"),
        ["Expected hidden[0] size (1, 3, 8), got [2, 3, 8]", "in Tagger.lstm"],
    ),
    "dtype of the state": (
        {"h": np.zeros((1, BATCH, 8))},
        *(RuntimeError, RuntimeError, "layer"),
        ["LSTM: input and hidden states must have the same dtype", "float64", "in Tagger.lstm"],
    ),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["lazily", "compiled"])
@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_batch(name: str, compiled: bool) -> None:
    changed, lazily, when_compiled, mark, parts = MISTAKES[name]
    training = Training(compiled)
    first = training.run()
    before = training.state()
    with pytest.raises(when_compiled if compiled else lazily) as caught:
        training.run(**changed)
    for part in [*parts, place(mark)]:
        assert any(form in str(caught.value) for form in part.split("|")), (part, str(caught.value))
    for was, now in zip(before, training.state(), strict=True):
        np.testing.assert_array_equal(was, now)
    other = Training(compiled)
    assert other.run() == first
    assert training.run() == other.run()


def test_sequences_of_no_steps() -> None:
    for layer in (nn.RNN(4, 3), nn.LSTM(4, 3), nn.GRU(4, 3, batch_first=True)):
        shape = (2, 0, 4) if layer.batch_first else (0, 2, 4)
        with pytest.raises(RuntimeError, match="sequence length to be larger than 0") as caught:
            graphc.compile(layer)(graphc.zeros(shape))
        assert f"in {type(layer).__name__}" in str(caught.value)
