"""Networks over sequences, written once with the namespace (torch or graphc) as an argument."""

from __future__ import annotations

from typing import Any

Namespace = Any
Module = Any


def lstm_lm(T: Namespace, vocabulary: int = 128, width: int = 128, hidden: int = 256) -> Module:
    """A language model: tokens [batch, steps] -> logits [batch * steps, vocabulary]."""
    nn = T.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(vocabulary, width)
            self.lstm = nn.LSTM(width, hidden, num_layers=2, batch_first=True)
            self.head = nn.Linear(hidden, vocabulary)

        def forward(self, x: Any) -> Any:
            out, _ = self.lstm(self.embed(x))
            return self.head(out).reshape(-1, vocabulary)

    return Net()


def gru_seq(T: Namespace, features: int = 64, hidden: int = 32) -> Module:
    """A number for each step: [batch, steps, features] -> [batch, steps, 1]."""
    nn = T.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(features, hidden, batch_first=True)
            self.head = nn.Linear(hidden, 1)

        def forward(self, x: Any) -> Any:
            out, _ = self.gru(x)
            return self.head(out)

    return Net()


def lstm_tagger(T: Namespace) -> Module:
    """A tag for each word of one sentence: words [steps] -> log-probabilities [steps, 3]."""
    nn, F = T.nn, T.nn.functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 6)
            self.lstm = nn.LSTM(6, 6)
            self.head = nn.Linear(6, 3)

        def forward(self, words: Any) -> Any:
            out, _ = self.lstm(self.embed(words).view(len(words), 1, -1))
            return F.log_softmax(self.head(out.view(len(words), -1)), dim=1)

    return Net()


def lstm_infer(T: Namespace) -> Module:
    """Two wide layers for one sequence: [1, steps, 128] -> [1, steps, 512]."""
    nn = T.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(128, 512, num_layers=2, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0]

    return Net()
