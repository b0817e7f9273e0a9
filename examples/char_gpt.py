"""A character transformer (GPT) that learns to write documentation of Python's standard library.

python examples/char_gpt.py --compile
python examples/char_gpt.py --compile --resume --steps 4000 --temperature 0.6 --plot
"""

from __future__ import annotations

from pathlib import Path

from characters import arguments, run

import graphc
import graphc.nn.functional as F
from graphc import nn


class Block(nn.Module):
    """Causal self-attention, then a two-layer network; each reads a norm of the sum so far."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def attention(self, x):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(out.transpose(1, 2).flatten(2))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, characters: int, length: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(characters, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)
        for embedding in (self.token, self.place):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, x):
        h = self.token(x) + self.place(graphc.arange(x.shape[1]))
        return self.head(self.norm(self.blocks(h)))


if __name__ == "__main__":
    args = arguments(__doc__, lr=2e-3, width=128, depth=4, out=Path("runs/char_gpt"))
    run(args, lambda n: GPT(n, args.length, args.width, max(1, args.width // 32), args.depth))
