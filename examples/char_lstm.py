"""A character LSTM that learns to write documentation of Python's standard library.

python examples/char_lstm.py --compile
python examples/char_lstm.py --compile --resume --steps 4000 --temperature 0.6 --plot
"""

from __future__ import annotations

from pathlib import Path

from characters import arguments, run

from graphc import nn


class CharLSTM(nn.Module):
    def __init__(self, characters: int, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, width // 2)
        self.lstm = nn.LSTM(width // 2, width, num_layers=depth, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, x):
        out, _ = self.lstm(self.embed(x))
        return self.head(out)


if __name__ == "__main__":
    args = arguments(__doc__, lr=4e-3, width=256, depth=2, out=Path("runs/char_lstm"))
    run(args, lambda n: CharLSTM(n, args.width, args.depth))
