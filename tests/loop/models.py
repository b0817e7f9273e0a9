"""Small graphs of the patterns that fusion is for."""

from __future__ import annotations

from itertools import pairwise

from graphc import ops
from graphc.autodiff import gradients
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, float32, int64


def leaf(name: str, *shape: int, dtype: DType = float32) -> Node:
    return ops.input_(name, TensorType(shape, dtype))


def spread(x: Node, like: Node, dims: tuple[int, ...]) -> Node:
    return ops.broadcast(x, like.shape, dims)


def scale(x: Node, factor: float) -> Node:
    return ops.mul(x, ops.like(x, factor))


def graph(inputs: list[Node], outputs: list[Node]) -> Graph:
    return Graph(tuple(inputs), tuple(outputs))


def softmax(x: Node) -> Node:
    """Over the last axis."""
    lead = tuple(range(x.type.rank - 1))
    top = ops.stop_gradient(ops.reduce_max(x, (x.type.rank - 1,)))
    e = ops.exp(ops.sub(x, spread(top, x, lead)))
    return ops.div(e, spread(ops.reduce_sum(e, (x.type.rank - 1,)), x, lead))


def normalise(x: Node, kept: tuple[int, ...], eps: float = 1e-5) -> Node:
    """(x - mean) / sqrt(var + eps) over the axes that are not kept."""
    axes = tuple(a for a in range(x.type.rank) if a not in kept)
    count = x.type.size // max(1, ops.reduce_sum(x, axes).type.size)
    mean = scale(ops.reduce_sum(x, axes), 1.0 / count)
    centred = ops.sub(x, spread(mean, x, kept))
    var = scale(ops.reduce_sum(ops.mul(centred, centred), axes), 1.0 / count)
    inv = ops.rsqrt(ops.add(var, ops.like(var, eps)))
    return ops.mul(centred, spread(inv, x, kept))


def relu(x: Node) -> Node:
    return ops.select(ops.le(x, ops.like(x, 0)), ops.like(x, 0), x)


def affine(x: Node, gamma: Node, beta: Node, dims: tuple[int, ...]) -> Node:
    return ops.add(ops.mul(x, spread(gamma, x, dims)), spread(beta, x, dims))


def with_gradients(y: Node, wrt: list[Node], ct: Node) -> list[Node]:
    found = gradients([y], [ct], wrt)
    assert None not in found
    return [y, *found]  # type: ignore[list-item]


def softmax_backward(n: int, d: int) -> Graph:
    x, ct = leaf("x", n, d), leaf("ct", n, d)
    return graph([x, ct], with_gradients(softmax(x), [x], ct))


def layernorm(n: int, d: int, backward: bool) -> Graph:
    x, gamma, beta, ct = leaf("x", n, d), leaf("g", d), leaf("b", d), leaf("ct", n, d)
    y = affine(normalise(x, (0,)), gamma, beta, (1,))
    if not backward:
        return graph([x, gamma, beta], [y])
    return graph([x, gamma, beta, ct], with_gradients(y, [x, gamma, beta], ct))


def batchnorm(n: int, c: int, h: int, w: int, backward: bool) -> Graph:
    """Batch norm of NCHW and a ReLU."""
    x, gamma, beta, ct = leaf("x", n, c, h, w), leaf("g", c), leaf("b", c), leaf("ct", n, c, h, w)
    y = relu(affine(normalise(x, (1,)), gamma, beta, (1,)))
    if not backward:
        return graph([x, gamma, beta], [y])
    return graph([x, gamma, beta, ct], with_gradients(y, [x, gamma, beta], ct))


def cross_entropy(n: int, c: int) -> Graph:
    """Mean cross entropy of logits and its gradient."""
    x, labels = leaf("x", n, c), leaf("labels", n, dtype=int64)
    top = ops.stop_gradient(ops.reduce_max(x, (1,)))
    shifted = ops.sub(x, spread(top, x, (0,)))
    total = ops.log(ops.reduce_sum(ops.exp(shifted), (1,)))
    logp = ops.sub(shifted, spread(total, x, (0,)))
    picked = ops.take_along(logp, ops.reshape(labels, (n, 1)), 1)
    loss = scale(ops.reduce_sum(ops.reshape(picked, (n,)), (0,)), -1.0 / n)
    (dx,) = gradients([loss], [ops.ones(loss.type)], [x])
    assert dx is not None
    return graph([x, labels], [loss, dx])


def adamw(*shape: int) -> Graph:
    p, g, m, v = (leaf(name, *shape) for name in "pgmv")
    lr, bias1, bias2 = leaf("lr"), leaf("bias1"), leaf("bias2")
    wide = lambda s: ops.broadcast(s, shape, ())  # noqa: E731
    m1 = ops.add(scale(m, 0.9), scale(g, 0.1))
    v1 = ops.add(scale(v, 0.999), scale(ops.mul(g, g), 0.001))
    bottom = ops.add(ops.div(ops.sqrt(v1), wide(ops.sqrt(bias2))), ops.like(p, 1e-8))
    step = ops.mul(ops.div(m1, bottom), wide(ops.div(lr, bias1)))
    decayed = ops.mul(p, wide(ops.sub(ops.constant(1.0, float32), scale(lr, 0.01))))
    return graph([p, g, m, v, lr, bias1, bias2], [ops.sub(decayed, step), m1, v1])


def max_pool(n: int, c: int, h: int, backward: bool) -> Graph:
    """ReLU and 2x2 max pooling."""
    x = leaf("x", n, c, h, h)
    args = ((2, 2), (2, 2), (0, 0), (0, 0), (1, 1))
    y = ops.reduce_max(ops.window(relu(x), *args, float("-inf")), (4, 5))
    if not backward:
        return graph([x], [y])
    ct = leaf("ct", *y.shape)
    return graph([x, ct], with_gradients(y, [x], ct))


def mlp(n: int, sizes: tuple[int, ...]) -> Graph:
    """A network with sigmoid between the layers, its squared loss and all gradients."""
    x, t = leaf("x", n, sizes[0]), leaf("t", n, sizes[-1])
    weights: list[Node] = []
    y = x
    for i, (a, b) in enumerate(pairwise(sizes)):
        w, bias = leaf(f"w{i}", b, a), leaf(f"b{i}", b)
        weights += [w, bias]
        y = ops.dot_general(y, w, ((1,), (1,)), ((), ()))
        y = ops.add(y, spread(bias, y, (1,)))
        if i + 2 < len(sizes):
            y = ops.sigmoid(y)
    error = ops.sub(y, t)
    loss = scale(ops.reduce_sum(ops.mul(error, error), (0, 1)), 1.0 / n)
    grads = gradients([loss], [ops.ones(loss.type)], weights)
    new = [ops.sub(w, scale(g, 0.1)) for w, g in zip(weights, grads, strict=True) if g is not None]
    return graph([x, t, *weights], [loss, *new])
