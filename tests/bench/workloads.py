"""What the benchmark measures, written once with the namespace (torch or graphc) as an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.parity import models, sequences

Namespace = Any
Step = Callable[[], Any]


@dataclass(frozen=True)
class Workload:
    """`build(T, compile)` returns a function that does one step and brings its result to the caller.

    flops and bytes are the least a step must do, where one of them is the limit.
    """

    build: Callable[[Namespace, bool], Step]
    flops: float = 0.0
    bytes: float = 0.0


def _array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _kernel(
    function: Callable[[Namespace], Callable[..., Any]], *shapes: tuple[int, ...]
) -> Callable[..., Step]:
    """One operator, forward only, on float32 arrays."""

    def build(T: Namespace, compile: bool) -> Step:
        inputs = [T.from_numpy(_array(*shape, seed=i)) for i, shape in enumerate(shapes)]
        run = function(T)
        run = T.compile(run) if compile else run

        def step() -> Any:
            with T.no_grad():
                return run(*inputs).numpy()

        return step

    return build


def _integers(high: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape)


def _training(
    net: Callable[[Namespace], Any], shape: tuple[int, ...], optimizer: str, **options: float
) -> Callable[..., Step]:
    """One training step with cross entropy over ten classes."""
    data = _array(*shape), _integers(10, shape[0], seed=1)
    return _training_on(net, data, "CrossEntropyLoss", optimizer, **options)


def _training_on(
    net: Callable[[Namespace], Any],
    data: tuple[np.ndarray, np.ndarray],
    loss: str,
    optimizer: str,
    **options: float,
) -> Callable[..., Step]:
    """One training step on (inputs, targets), compiled whole where `compile`."""

    def build(T: Namespace, compile: bool) -> Step:
        T.manual_seed(0)
        x, y = (T.from_numpy(a.copy()) for a in data)
        model, criterion = net(T), getattr(T.nn, loss)()
        update = getattr(T.optim, optimizer)(model.parameters(), **options)

        def train(x: Any, y: Any) -> Any:
            update.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            update.step()
            return loss

        run = T.compile(train) if compile else train
        return lambda: run(x, y).item()

    return build


def _inference(net: Callable[[Namespace], Any], *shape: int) -> Callable[..., Step]:
    """One forward pass in evaluation mode."""

    def build(T: Namespace, compile: bool) -> Step:
        T.manual_seed(0)
        model, x = net(T).eval(), T.from_numpy(_array(*shape))
        run = T.compile(model) if compile else model

        def step() -> Any:
            with T.no_grad():
                return run(x).numpy()

        return step

    return build


def _mlp(T: Namespace) -> Any:
    nn = T.nn
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )  # fmt: skip


def _conv(T: Namespace) -> Callable[..., Any]:
    return lambda x, w: T.nn.functional.conv2d(x, w, padding=1)


def _layer_norm(T: Namespace) -> Callable[..., Any]:
    return lambda x, w, b: T.nn.functional.layer_norm(x, (768,), w, b)


def _attention(T: Namespace, compile: bool) -> Step:
    """Scaled dot-product attention and the gradients of its operands."""
    q, k, v, upstream = (T.from_numpy(_array(4, 8, 512, 64, seed=i)) for i in range(4))
    for x in (q, k, v):
        x.requires_grad_()
    run = T.nn.functional.scaled_dot_product_attention
    run = T.compile(run) if compile else run

    def step() -> Any:
        for x in (q, k, v):
            x.grad = None
        run(q, k, v).backward(upstream)
        return [x.grad.numpy() for x in (q, k, v)]

    return step


def _encoder(T: Namespace) -> Any:
    """Two encoder layers with dropout, and a class from the mean over the sequence."""
    nn = T.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.1, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.encoder(x).mean(dim=1))

    return Net()


SGD = {"lr": 0.01, "momentum": 0.9}
WORKLOADS = {
    "matmul_1024": Workload(
        _kernel(lambda T: lambda a, b: a @ b, (1024, 1024), (1024, 1024)), flops=2.0 * 1024**3
    ),
    "conv3x3_64_64_56": Workload(
        _kernel(_conv, (8, 64, 56, 56), (64, 64, 3, 3)), flops=2.0 * 8 * 56 * 56 * 64 * 64 * 9
    ),
    "layernorm_32768_768": Workload(  # 100 MB in, 100 MB out: far beyond any cache
        _kernel(_layer_norm, (32768, 768), (768,), (768,)), bytes=2.0 * 32768 * 768 * 4
    ),
    "mlp": Workload(_training(_mlp, (128, 784), "SGD", **SGD)),
    "lenet": Workload(_training(models.lenet, (64, 1, 28, 28), "SGD", **SGD)),
    "digits": Workload(_training(models.digits_cnn, (64, 1, 8, 8), "AdamW", lr=1e-3)),
    "resnet18_cifar": Workload(_training(models.resnet18, (32, 3, 32, 32), "SGD", **SGD)),
    "lstm_lm": Workload(
        _training_on(
            sequences.lstm_lm,
            (_integers(128, 32, 64), _integers(128, 32 * 64, seed=1)),
            "CrossEntropyLoss",
            "Adam",
            lr=1e-3,
        ),
        flops=11.7e9,  # products of matrices, forward and backward
    ),
    "gru_seq": Workload(
        _training_on(
            sequences.gru_seq, (_array(8, 200, 64), _array(8, 200, 1, seed=1)), "MSELoss", "Adam", lr=1e-3
        )
    ),
    "lstm_tagger": Workload(
        _training_on(
            sequences.lstm_tagger, (_integers(9, 5), _integers(3, 5, seed=1)), "NLLLoss", "SGD", lr=0.1
        )
    ),
    "attention_512": Workload(_attention, flops=7 * 2.0 * 4 * 8 * 512 * 512 * 64),
    "char_transformer": Workload(
        _training_on(
            lambda T: models.gpt(T, 128, 128, 256, 8, 4),
            (_integers(128, 16, 128), _integers(128, 16 * 128, seed=1)),
            "CrossEntropyLoss",
            "Adam",
            lr=3e-4,
        ),
        flops=42.3e9,
    ),
    "transformer_encoder": Workload(_training(_encoder, (16, 64, 128), "Adam", lr=3e-4), flops=2.5e9),
    "lstm_infer": Workload(_inference(sequences.lstm_infer, 1, 100, 128)),
}
