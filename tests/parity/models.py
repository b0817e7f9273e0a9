"""Networks written once, with the namespace (torch or graphc) as an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Namespace = Any
Module = Any


def training_step(
    T: Namespace, model: Module, criterion: Module, optimizer: Any, compile: bool
) -> Callable[[Any, Any], Any]:
    """A function of a batch (x, y) that makes a step and gives the loss; with `compile` one program."""

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return T.compile(step) if compile else step


def mlp(T: Namespace) -> Module:
    nn = T.nn
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 10))


def digits_cnn(T: Namespace) -> Module:
    """The network of examples/digits_cnn.py without dropout, whose random stream is our own."""
    nn = T.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def lenet(T: Namespace) -> Module:
    nn, F = T.nn, T.nn.functional

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(400, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = T.flatten(x, 1)
            return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))

    return LeNet()


def resnet18(T: Namespace, width: int = 64) -> Module:
    nn, F = T.nn, T.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.down = None
            if stride != 1 or inputs != outputs:
                self.down = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x: Any) -> Any:
            skip = x if self.down is None else self.down(x)
            x = F.relu(self.bn1(self.conv1(x)))
            return F.relu(self.bn2(self.conv2(x)) + skip)

    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(4):
        for i in range(2):
            layers.append(Block(inputs, width << stage, 2 if stage and not i else 1))
            inputs = width << stage
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10)]
    return nn.Sequential(*layers)


def gpt(T: Namespace, vocab: int, length: int, width: int, heads: int, depth: int) -> Module:
    """A character transformer, attention spelled out with matmul and softmax."""
    nn, F = T.nn, T.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            self.register_buffer("future", T.ones(length, length).triu(1) == 1)

        def attend(self, x: Any) -> Any:
            batch, steps, _ = x.shape
            q, k, v = (
                t.view(batch, steps, heads, width // heads).transpose(1, 2)
                for t in self.qkv(x).split(width, dim=2)
            )
            scores = q @ k.transpose(-2, -1) / (width // heads) ** 0.5
            weights = F.softmax(scores.masked_fill(self.future, float("-inf")), dim=-1)
            return self.proj((weights @ v).transpose(1, 2).reshape(batch, steps, width))

        def forward(self, x: Any) -> Any:
            x = x + self.attend(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Embedding(vocab, width), nn.Embedding(length, width)
            self.blocks = nn.Sequential(*[Block() for _ in range(depth)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab)

        def forward(self, x: Any) -> Any:
            h = self.token(x) + self.place(T.arange(length))
            return self.head(self.norm(self.blocks(h))).reshape(-1, vocab)

    return GPT()


def encoder(T: Namespace, vocab: int, length: int, width: int, heads: int, depth: int) -> Module:
    """The same task for PyTorch's own encoder layers, under a causal mask."""
    nn = T.nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Embedding(vocab, width), nn.Embedding(length, width)
            layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, depth)
            self.head = nn.Linear(width, vocab)
            self.register_buffer("future", nn.Transformer.generate_square_subsequent_mask(length))

        def forward(self, x: Any) -> Any:
            h = self.token(x) + self.place(T.arange(length))
            return self.head(self.layers(h, mask=self.future)).reshape(-1, vocab)

    return Encoder()


def translator(T: Namespace, vocab: int, length: int, width: int, heads: int, depth: int) -> Module:
    """Reads a sequence and writes it moved by one: encoder, decoder and attention between them."""
    nn = T.nn

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Embedding(vocab, width)
            self.body = nn.Transformer(
                width, heads, depth, depth, 2 * width, 0.0, batch_first=True, norm_first=True
            )
            self.head = nn.Linear(width, vocab)

        def forward(self, x: Any) -> Any:
            h = self.token(x)
            future = self.body.generate_square_subsequent_mask(length)
            out = self.body(h, h, tgt_mask=future, tgt_is_causal=True)
            return self.head(out).reshape(-1, vocab)

    return Translator()
