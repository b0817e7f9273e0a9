"""Linear maps, and labels as vectors."""

from __future__ import annotations

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.checks import need_known
from graphc.frontend.functions.linalg import linear_node
from graphc.frontend.nodes import cast, expand, spread
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import int64
from graphc.nn.functional.common import need_tensors


@repeatable
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input [..., k] times weight [m, k] transposed, plus bias [m]: [..., m].

    RuntimeError, naming the shapes, if they do not fit or dtypes differ.
    """
    tensors = (input, weight) if bias is None else (input, weight, bias)
    need_tensors("linear", *tensors)
    if len({t.dtype for t in tensors}) > 1:
        names = {"float32": "float", "float64": "double", "int64": "long int", "int32": "int"}
        a, b = (names.get(t.dtype.name, t.dtype.name) for t in (input, weight))
        raise fail(
            RuntimeError,
            f"linear: mat1 and mat2 must have the same dtype, but got {a} and {b} (given "
            f"{describe(*tensors)})",
        )
    if input.ndim == 0 or weight.ndim not in (1, 2) or input.shape[-1] != weight.shape[-1]:
        rows = input.numel() // input.shape[-1] if input.ndim and input.shape[-1] else 1
        mine = f"{rows}x{input.shape[-1] if input.ndim else 1}"
        theirs = "x".join(map(str, reversed(weight.shape)))
        raise fail(
            RuntimeError,
            f"linear: mat1 and mat2 shapes cannot be multiplied ({mine} and {theirs}): "
            f"input {list(input.shape)}, weight {list(weight.shape)}",
        )
    if weight.ndim == 1:
        return apply("SqueezeBackward4", _vector_linear, *tensors)
    if bias is not None and tuple(bias.shape) not in ((weight.shape[0],), (1,), ()):
        raise fail(
            RuntimeError,
            f"linear: the bias must have the weight's {weight.shape[0]} rows, got {list(bias.shape)}",
        )
    label = "AddmmBackward0" if bias is not None and input.ndim == 2 else "LinearBackward0"
    return apply(label, linear_node, *tensors)


def _vector_linear(x: Node, w: Node, b: Node | None = None) -> Node:
    y = ops.dot_general(x, w, ((x.type.rank - 1,), (0,)))
    return y if b is None else ops.add(y, expand(b, y.shape))


@repeatable
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[..., o] = sum over i, j of x1[..., i] * weight[o, i, j] * x2[..., j], plus bias[o]."""
    tensors = (input1, input2, weight) if bias is None else (input1, input2, weight, bias)
    need_tensors("bilinear", *tensors)
    fits = (
        weight.ndim == 3
        and input1.shape[:-1] == input2.shape[:-1]
        and (input1.shape[-1], input2.shape[-1]) == tuple(weight.shape[1:])
    )
    if not fits:
        raise fail(RuntimeError, f"bilinear: shapes do not fit: {describe(*tensors)}")

    def build(a: Node, b: Node, w: Node, c: Node | None = None) -> Node:
        lead, rows = a.shape[:-1], a.type.size // a.shape[-1]
        a, b = ops.reshape(a, (rows, a.shape[-1])), ops.reshape(b, (rows, b.shape[-1]))
        half = ops.dot_general(a, w, ((1,), (1,)))  # [rows, o, j]
        y = ops.dot_general(half, b, ((2,), (1,)), ((0,), (0,)))
        y = y if c is None else ops.add(y, expand(c, y.shape))
        return ops.reshape(y, (*lead, w.shape[0]))

    return apply("BilinearBackward0", build, *tensors)


def check_labels(name: str, labels: Node, count: int, what: str) -> Node:
    """`labels`, checked when the program runs to be in 0..count-1."""
    message = f"{name}: {what} is out of bounds: it must be at least 0 and less than {count}"
    return ops.check_index(labels, 0, count, message)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 rows with a 1 at the index. num_classes = -1 reads the data: largest index + 1."""
    need_tensors("one_hot", tensor)
    if tensor.dtype is not int64:
        raise fail(RuntimeError, "one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes == -1:
        if tensor.numel() == 0:
            raise fail(RuntimeError, "Can not infer total number of classes from empty tensor.")
        need_known("one_hot()", "the number of classes", tensor, "give num_classes")
        num_classes = int(tensor.max().item()) + 1  # type: ignore[attr-defined]
        if num_classes < 1:
            raise fail(RuntimeError, f"Class values must be non-negative (one_hot of {describe(tensor)})")
    if num_classes < 1:
        raise fail(RuntimeError, f"num_classes should be positive, got {num_classes}")

    def build(n: Node) -> Node:
        index = check_labels("one_hot", n, num_classes, "Class value")
        shape = (*n.shape, num_classes)
        hit = ops.eq(spread(index, shape, len(shape) - 1), ops.iota(shape, len(shape) - 1, int64))
        return cast(hit, int64)

    return apply("OneHotBackward0", build, tensor)
