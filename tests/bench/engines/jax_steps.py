"""Steps of JAX: whole training steps under `jit` with their state donated.

Networks are as its own guides write them: pictures are NHWC, recurrent layers project all steps at once
before a `lax.scan`. Parameters have the shapes of the other engines' but are drawn differently, so losses are
alike, not equal. What is not in `NETS` is not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, nn

from tests.bench.engines import Step
from tests.bench.workload import Inference, Training, Workload

Array = Any
Params = dict[str, Array]
Net = tuple[dict[str, tuple[int, ...]], Callable[[Params, Array], Array]]


def build(package: str, name: str, workload: Workload, threads: int, cache: Path) -> Step:
    """See `Engine.build`. (JAX takes as many threads as the process has processors.)"""
    shapes, apply = NETS[name.removesuffix("_infer").removesuffix("_adam")]
    params = _draw(shapes)
    data = [jnp.asarray(a.transpose(0, 2, 3, 1) if a.ndim == 4 else a) for a in workload.data()]
    if isinstance(workload, Inference):
        forward = jax.jit(apply)
        return lambda: [np.asarray(forward(params, data[0]))]
    assert isinstance(workload, Training)
    init, update = OPTIMIZERS[workload.optimizer]
    criterion = LOSSES[workload.loss]

    def train(state: tuple[Params, Any], x: Array, y: Array) -> tuple[Array, tuple[Params, Any]]:
        params, moments = state
        loss, gradients = jax.value_and_grad(lambda p: criterion(apply(p, x), y))(params)
        return loss, update(params, gradients, moments, **workload.options)

    run = jax.jit(train, donate_argnums=0)
    state = (params, init(params))

    def step() -> list[np.ndarray]:
        nonlocal state
        loss, state = run(state, *data)
        return [np.asarray(loss)]

    return step


def _draw(shapes: dict[str, tuple[int, ...]]) -> Params:
    """Filters are HWIO, matrices [in, out]: the last axis is the output."""
    random = np.random.default_rng(0)
    found = {}
    for name, shape in shapes.items():
        scale = np.float32(1 / np.sqrt(np.prod(shape[:-1]))) if len(shape) > 1 else np.float32(0)
        found[name] = jnp.asarray(random.standard_normal(shape, dtype=np.float32) * scale)
    return found


# ------------------------------------------------------------------- optimizers and losses


def _sgd(params: Params, gradients: Params, velocity: Params, lr: float, momentum: float = 0.0) -> Any:
    velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradients)
    return jax.tree.map(lambda p, v: p - lr * v, params, velocity), velocity


def _adam(params: Params, gradients: Params, state: Any, lr: float) -> Any:
    count, first, second = state
    count = count + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
    rate = lr * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    new = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), params, first, second)
    return new, (count, first, second)


def _zeros(params: Params) -> Params:
    return jax.tree.map(jnp.zeros_like, params)


OPTIMIZERS: dict[str, tuple[Callable[[Params], Any], Callable[..., Any]]] = {
    "SGD": (_zeros, _sgd),
    "Adam": (lambda p: (jnp.zeros((), jnp.float32), _zeros(p), _zeros(p)), _adam),
}


def _cross_entropy(logits: Array, y: Array) -> Array:
    return -jnp.take_along_axis(nn.log_softmax(logits), y[:, None], 1).mean()


def _binary(logits: Array, y: Array) -> Array:
    return (nn.softplus(logits) - y * logits).mean()


LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "CrossEntropyLoss": _cross_entropy,
    "BCEWithLogitsLoss": _binary,
    "MSELoss": lambda out, y: ((out - y) ** 2).mean(),
}

# ---------------------------------------------------------------------------- networks


def _dense(*widths: int) -> Net:
    """Linear layers with ReLU between them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (a, b) in enumerate(pairwise(widths)):
        shapes |= {f"w{i}": (a, b), f"b{i}": (b,)}

    def apply(p: Params, x: Array) -> Array:
        last = len(widths) - 2
        for i in range(last):
            x = nn.relu(x @ p[f"w{i}"] + p[f"b{i}"])
        return x @ p[f"w{last}"] + p[f"b{last}"]

    return shapes, apply


def _conv(x: Array, w: Array, stride: int = 1, padding: str = "SAME") -> Array:
    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pool(x: Array) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _lenet() -> Net:
    shapes, head = _dense(400, 120, 84, 10)
    shapes = {"c1": (5, 5, 1, 6), "d1": (6,), "c2": (5, 5, 6, 16), "d2": (16,), **shapes}

    def apply(p: Params, x: Array) -> Array:
        x = _pool(nn.relu(_conv(x, p["c1"]) + p["d1"]))
        x = _pool(nn.relu(_conv(x, p["c2"], padding="VALID") + p["d2"]))
        return head(p, x.reshape(x.shape[0], -1))

    return shapes, apply


def _norm(x: Array, gain: Array, bias: Array) -> Array:
    mean, square = x.mean((0, 1, 2)), (x * x).mean((0, 1, 2))
    return (x - mean) * lax.rsqrt(square - mean * mean + 1e-5) * (1 + gain) + bias


def _resnet18() -> Net:
    """For pictures of 32x32. (Running statistics, which cost next to nothing, are left out.)"""
    shapes: dict[str, tuple[int, ...]] = {}
    blocks: list[tuple[str, int, bool]] = []

    def add(name: str, size: int, cin: int, cout: int) -> None:
        shapes.update({name: (size, size, cin, cout), f"{name}.g": (cout,), f"{name}.b": (cout,)})

    add("stem", 3, 3, 64)
    cin = 64
    for stage in range(4):
        for i in range(2):
            name, cout, stride = f"{stage}.{i}", 64 << stage, 2 if stage and not i else 1
            add(f"{name}.1", 3, cin, cout)
            add(f"{name}.2", 3, cout, cout)
            if stride > 1:
                add(f"{name}.s", 1, cin, cout)
            blocks.append((name, stride, stride > 1))
            cin = cout
    shapes |= {"w": (512, 10), "b": (10,)}

    def layer(p: Params, name: str, x: Array, stride: int = 1) -> Array:
        return _norm(_conv(x, p[name], stride), p[f"{name}.g"], p[f"{name}.b"])

    def apply(p: Params, x: Array) -> Array:
        x = nn.relu(layer(p, "stem", x))
        for name, stride, projected in blocks:
            skip = layer(p, f"{name}.s", x, stride) if projected else x
            x = nn.relu(layer(p, f"{name}.1", x, stride))
            x = nn.relu(layer(p, f"{name}.2", x) + skip)
        return x.mean((1, 2)) @ p["w"] + p["b"]

    return shapes, apply


def _lstm(p: Params, name: str, x: Array) -> Array:
    """[batch, steps, features] -> [batch, steps, hidden]."""
    inputs = jnp.swapaxes(x @ p[f"{name}.x"] + p[f"{name}.b"], 0, 1)
    hidden = p[f"{name}.h"].shape[0]

    def cell(carry: tuple[Array, Array], z: Array) -> tuple[tuple[Array, Array], Array]:
        h, c = carry
        i, f, g, o = jnp.split(z + h @ p[f"{name}.h"], 4, -1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        h = nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    start = jnp.zeros((x.shape[0], hidden))
    return jnp.swapaxes(lax.scan(cell, (start, start), inputs)[1], 0, 1)


def _lstm_lm() -> Net:
    shapes: dict[str, tuple[int, ...]] = {"embed": (128, 128), "w": (256, 128), "b": (128,)}
    for name, width in (("0", 128), ("1", 256)):
        shapes |= {f"{name}.x": (width, 1024), f"{name}.h": (256, 1024), f"{name}.b": (1024,)}

    def apply(p: Params, x: Array) -> Array:
        out = _lstm(p, "1", _lstm(p, "0", p["embed"][x]))
        return (out @ p["w"] + p["b"]).reshape(-1, 128)

    return shapes, apply


def _gru_seq() -> Net:
    shapes = {"x": (64, 96), "xb": (96,), "h": (32, 96), "hb": (96,), "w": (32, 1), "b": (1,)}

    def apply(p: Params, x: Array) -> Array:
        inputs = jnp.swapaxes(x @ p["x"] + p["xb"], 0, 1)

        def cell(h: Array, z: Array) -> tuple[Array, Array]:
            (zr, zu, zn), (r, u, n) = jnp.split(z, 3, -1), jnp.split(h @ p["h"] + p["hb"], 3, -1)
            update = nn.sigmoid(zu + u)
            h = (1 - update) * jnp.tanh(zn + nn.sigmoid(zr + r) * n) + update * h
            return h, h

        out = lax.scan(cell, jnp.zeros((x.shape[0], 32)), inputs)[1]
        return jnp.swapaxes(out, 0, 1) @ p["w"] + p["b"]

    return shapes, apply


NETS: dict[str, Net] = {
    "mlp": _dense(784, 512, 512, 10),
    "circles": _dense(2, 4, 8, 1),
    "lenet": _lenet(),
    "resnet18_cifar": _resnet18(),
    "lstm_lm": _lstm_lm(),
    "gru_seq": _gru_seq(),
}
