"""Matrix products and einsum: everything becomes dot_general."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.checks import need_tensors
from graphc.frontend.functions.convert import convert
from graphc.frontend.functions.elementwise import add, mul
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.shape import reshape_node
from graphc.frontend.nodes import broadcast_shapes, expand, normal_axis
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import Shape, bool_, int64


def _same_dtype(name: str, *tensors: Tensor) -> None:
    need_tensors(name, *tensors)
    first = tensors[0]
    for t in tensors:
        if t.dtype is not first.dtype:
            raise fail(
                RuntimeError,
                f"expected m1 and m2 to have the same dtype, but got: {first.dtype.name} != {t.dtype.name} "
                f"({name} of {describe(*tensors)})",
            )
    if first.dtype is bool_:
        raise fail(NotImplementedError, f"\"{name}\" not implemented for 'Bool'")


def _need_rank(name: str, tensor: Tensor, rank: int, which: str) -> None:
    if tensor.ndim != rank:
        kind = "matrix" if rank == 2 else "vector" if rank == 1 else f"{rank}D tensor"
        raise fail(
            RuntimeError, f"{name}: {which} must be a {kind}, got {tensor.ndim}D tensor ({describe(tensor)})"
        )


def _dot(a: Node, b: Node) -> Node:
    """[..., k] by [k, ...]: the last dim of `a` against the first of `b`."""
    return ops.dot_general(a, b, ((a.type.rank - 1,), (0,)))


@method(repeats=True)
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices [n, k] and [k, m]."""
    _same_dtype("mm", input, mat2)
    _need_rank("mm", input, 2, "self")
    _need_rank("mm", mat2, 2, "mat2")
    if input.shape[1] != mat2.shape[0]:
        raise _cannot_multiply("mat1 and mat2", input.shape, mat2.shape)
    return apply("MmBackward0", _dot, input, mat2)


def _cannot_multiply(names: str, a: Sequence[int], b: Sequence[int]) -> Exception:
    sizes = f"{'x'.join(map(str, a))} and {'x'.join(map(str, b))}"
    return fail(RuntimeError, f"matmul: {names} shapes cannot be multiplied ({sizes})")


@method(repeats=True)
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of matrices in step: [b, n, k] by [b, k, m]."""
    _same_dtype("bmm", input, mat2)
    _need_rank("bmm", input, 3, "batch1")
    _need_rank("bmm", mat2, 3, "batch2")
    b, _, k = input.shape
    if mat2.shape[:2] != (b, k):
        raise fail(
            RuntimeError,
            f"Expected size for first two dimensions of batch2 tensor to be: [{b}, {k}] but got: "
            f"[{mat2.shape[0]}, {mat2.shape[1]}].",
        )
    return apply("BmmBackward0", lambda x, y: ops.dot_general(x, y, ((2,), (1,)), ((0,), (0,))), input, mat2)


@method(repeats=True)
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """A matrix [n, k] by a vector [k]."""
    _same_dtype("mv", input, vec)
    _need_rank("mv", input, 2, "self")
    _need_rank("mv", vec, 1, "vec")
    if input.shape[1] != vec.shape[0]:
        raise fail(
            RuntimeError,
            f"size mismatch, got input ({input.shape[0]}), mat ({input.shape[0]}x"
            f"{input.shape[1]}), vec ({vec.shape[0]})",
        )
    return apply("MvBackward0", _dot, input, vec)


@method("dot", "inner_1d", repeats=True)
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors."""
    _same_dtype("dot", input, tensor)
    if input.ndim != 1 or tensor.ndim != 1:
        raise fail(RuntimeError, f"1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors")
    if input.shape != tensor.shape:
        raise fail(
            RuntimeError,
            f"inconsistent tensor size, expected tensor [{input.shape[0]}] and src [{tensor.shape[0]}] to "
            f"have the "
            f"same number of elements, but got {input.shape[0]} and {tensor.shape[0]} elements respectively",
        )
    return apply("DotBackward0", _dot, input, tensor)


@method("outer", "ger")
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of elements of two vectors."""
    _need_rank("outer", input, 1, "self")
    _need_rank("outer", vec2, 1, "vec2")
    return mul(input.unsqueeze(1), vec2.unsqueeze(0))


def matmul_node(a: Node, b: Node) -> Node:
    """matmul of nodes of rank at least 1, whose sizes have been checked."""
    if a.type.rank == 1 or b.type.rank <= 2:
        if b.type.rank <= 2:
            return _dot(a, b)
        return ops.dot_general(b, a, ((b.type.rank - 2,), (0,)))
    if a.type.rank == 2:
        found = ops.dot_general(a, b, ((1,), (b.type.rank - 2,)))  # [n, *batch, m]
        rank = found.type.rank
        return ops.transpose(found, (*range(1, rank - 1), 0, rank - 1))
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = expand(a, (*batch, *a.shape[-2:]))
    b = expand(b, (*batch, *b.shape[-2:]))
    dims = tuple(range(len(batch)))
    return ops.dot_general(a, b, ((len(batch) + 1,), (len(batch),)), (dims, dims))


@method(repeats=True)
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product, with vectors and broadcast batches as in PyTorch."""
    _same_dtype("matmul", input, other)
    if input.ndim == 0 or other.ndim == 0:
        raise fail(
            RuntimeError,
            f"both arguments to matmul need to be at least 1D, but they are {input.ndim}D and {other.ndim}D",
        )
    inner = other.shape[0] if other.ndim == 1 else other.shape[-2]
    if input.shape[-1] != inner:
        a = _as_matrix(input.shape, False)
        b = _as_matrix(other.shape, True)
        raise _cannot_multiply("mat1 and mat2", a, b)
    if input.ndim == other.ndim == 1:
        return apply("DotBackward0", _dot, input, other)
    label = "MmBackward0" if input.ndim == other.ndim == 2 else "UnsafeViewBackward0"
    if other.ndim == 1 and input.ndim == 2:
        label = "MvBackward0"
    if input.ndim >= 3 and other.ndim >= 3:
        label = "BmmBackward0"
    return apply(_saving(label), matmul_node, input, other)


def _saving(label: str) -> str:
    """History that keeps both operands, under a name that says so."""
    return "MmBackward0" if label == "UnsafeViewBackward0" else label


def _as_matrix(shape: Sequence[int], right: bool) -> tuple[int, int]:
    if len(shape) == 1:
        return (shape[0], 1) if right else (1, shape[0])
    if right:
        return shape[-2], shape[-1]
    rows = 1
    for extent in shape[:-1]:
        rows *= extent
    return rows, shape[-1]


@method(inplace=True)
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    return _plus_product("AddmmBackward0", input, mat1, mat2, mm, beta, alpha)


@method(inplace=True)
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec)."""
    return _plus_product("AddmvBackward0", input, mat, vec, mv, beta, alpha)


@method(inplace=True)
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2), batched."""
    return _plus_product("BaddbmmBackward0", input, batch1, batch2, bmm, beta, alpha)


@method(inplace=True)
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * the sum over the batch of batch1 @ batch2."""
    return _plus_product(
        "AddbmmBackward0", input, batch1, batch2, lambda a, b: bmm(a, b).sum(0, dtype=a.dtype), beta, alpha
    )


@method(inplace=True)
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2)."""
    return _plus_product("AddrBackward0", input, vec1, vec2, outer, beta, alpha)


def _plus_product(
    label: str, input: Tensor, a: Tensor, b: Tensor, product: Any, beta: float, alpha: float
) -> Tensor:
    found = product(a, b)
    if not found.dtype.is_float:
        alpha, beta = int(alpha), int(beta)
    if found.dtype is bool_:
        alpha, beta = bool(alpha), bool(beta)
    if alpha != 1:
        found = mul(found, alpha)
    if beta == 0:
        return found
    if input.dtype is not a.dtype:
        raise fail(
            RuntimeError, f"{label.removesuffix('Backward0').lower()}: dtypes differ: {describe(input, a)}"
        )
    shape = found.shape
    if broadcast_shapes(tuple(input.shape), tuple(shape)) != tuple(shape):
        raise fail(
            RuntimeError,
            f"The expanded size of the tensor ({shape[-1]}) must match the existing size "
            f"({input.shape[-1]}): "
            f"input {list(input.shape)} does not broadcast to {list(shape)}",
        )
    return add(input if beta == 1 else mul(input, beta), found)


def linear_node(x: Node, weight: Node, bias: Node | None = None) -> Node:
    """x[..., k] times weight[m, k] transposed, plus bias[m]."""
    y = ops.dot_general(x, weight, ((x.type.rank - 1,), (1,)))
    return y if bias is None else ops.add(y, expand(bias, y.shape))


@method("tensordot", only_function=True)
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sum of products over given dims of each, or over the last/first `dims` ones."""
    _same_dtype("tensordot", a, b)
    if isinstance(dims, int):
        left, right = tuple(range(a.ndim - dims, a.ndim)), tuple(range(dims))
    else:
        left, right = (
            tuple(normal_axis(d, t.ndim) for d in ([side] if isinstance(side, int) else side))
            for side, t in zip(dims, (a, b), strict=True)
        )
    for i, j in zip(left, right, strict=True):
        if a.shape[i] != b.shape[j] and 1 in (a.shape[i], b.shape[j]):  # PyTorch broadcasts these
            a, b = (
                t.sum(d, keepdim=True, dtype=t.dtype) if t.shape[d] != 1 else t for t, d in ((a, i), (b, j))
            )
        elif a.shape[i] != b.shape[j]:
            raise fail(
                RuntimeError,
                f"contracted dimensions need to match, "
                f"but first has size {a.shape[i]} in dim {i}"
                f" and second has size {b.shape[j]} in dim {j}",
            )
    return apply("MmBackward0", lambda x, y: ops.dot_general(x, y, (left, right)), a, b)


# ---------------------------------------------------------------------- einsum


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Labels of each operand and of the result; `...` becomes numbered labels."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise fail(
            RuntimeError,
            f"einsum(): {'fewer' if len(terms) > len(ranks) else 'more'} operands were provided than "
            f"specified in "
            f"the equation '{equation}'",
        )
    widest = 0
    for term, rank in zip(terms, ranks, strict=True):
        named = len(term.replace("...", ""))
        if "..." in term:
            widest = max(widest, rank - named)
        elif named != rank:
            raise fail(
                RuntimeError,
                f"einsum(): the number of subscripts in the equation ({named}) does not match the number "
                f"of dimensions "
                f"({rank}) for an operand of '{equation}'",
            )

    def labels(term: str, rank: int) -> list[str]:
        head, dots, tail = term.partition("...")
        if not dots:
            return list(head)
        count = rank - len(head) - len(tail)
        return [*head, *[f".{widest - count + i}" for i in range(count)], *tail]

    operands = [labels(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    dotted = [f".{i}" for i in range(widest)]
    if arrow:
        out = labels(right, widest + len(right.replace("...", "")))
    else:
        names = [label for term in operands for label in term if not label.startswith(".")]
        out = [*dotted, *sorted(n for n in set(names) if names.count(n) == 1)]
    known = {label for term in operands for label in term}
    for label in out:
        if label not in known:
            raise fail(
                RuntimeError, f"einsum(): output subscript {label} does not appear in any input subscript"
            )
    return operands, out


def _diagonal(n: Node, labels: list[str]) -> tuple[Node, list[str]]:
    """Take the diagonal over each repeated label."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            n = diagonal_node(n, i, j)
            labels = [*labels[:j], *labels[j + 1 :]]
    return n, labels


def diagonal_node(n: Node, i: int, j: int) -> Node:
    """The elements with equal index in dims i < j (of equal extent), in dim i; dim j goes."""
    extent, shape = n.shape[i], n.shape
    same = ops.eq(ops.iota((extent, extent), 0), ops.iota((extent, extent), 1))
    mask = ops.broadcast(same, shape, (i, j))
    fill = ops.full(shape, False if n.dtype is bool_ else 0, n.dtype)
    if n.dtype is bool_:
        return ops.reduce_or(ops.select(mask, n, fill), (j,))
    return ops.reduce_sum(ops.select(mask, n, fill), (j,))


def _sum_out(n: Node, labels: list[str], keep: set[str]) -> tuple[Node, list[str]]:
    axes = tuple(i for i, label in enumerate(labels) if label not in keep)
    return (ops.reduce_sum(n, axes), [x for x in labels if x in keep]) if axes else (n, labels)


def _pair(a: Node, la: list[str], b: Node, lb: list[str], keep: set[str]) -> tuple[Node, list[str]]:
    """Contract two operands; labels in `keep` survive."""
    a, la = _sum_out(a, la, keep | set(lb))
    b, lb = _sum_out(b, lb, keep | set(la))
    a, la = _drop_ones(a, la, b, lb)
    b, lb = _drop_ones(b, lb, a, la)
    batch = [x for x in la if x in lb and x in keep]
    summed = [x for x in la if x in lb and x not in keep]
    contract = tuple(la.index(x) for x in summed), tuple(lb.index(x) for x in summed)
    walked = tuple(la.index(x) for x in batch), tuple(lb.index(x) for x in batch)
    out = [*batch, *[x for x in la if x not in lb], *[x for x in lb if x not in la]]
    return ops.dot_general(a, b, contract, walked), out


def _drop_ones(n: Node, labels: list[str], other: Node, theirs: list[str]) -> tuple[Node, list[str]]:
    """Drop dims of size 1 that broadcast against the other operand's."""
    gone = [
        i for i, x in enumerate(labels) if x in theirs and n.shape[i] == 1 != other.shape[theirs.index(x)]
    ]
    if not gone:
        return n, labels
    shape = tuple(e for i, e in enumerate(n.shape) if i not in gone)
    return ops.reshape(n, shape), [x for i, x in enumerate(labels) if i not in gone]


def _check_extents(equation: str, operands: list[list[str]], shapes: list[Shape]) -> None:
    extents: dict[str, int] = {}
    for labels, shape in zip(operands, shapes, strict=True):
        for label, extent in zip(labels, shape, strict=True):
            known = extents.setdefault(label, extent)
            if known != extent and 1 not in (known, extent):
                raise fail(
                    RuntimeError,
                    f"einsum(): subscript {label} has size {extent} which does not broadcast with "
                    f"previously seen "
                    f"size {known} ('{equation}', shapes {[list(s) for s in shapes]})",
                )
            extents[label] = max(known, extent)


@method(only_function=True)
def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products in Einstein's notation; operands are contracted from left to right."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    _same_dtype("einsum", *operands)
    labels, out = _parse(equation, [t.ndim for t in operands])
    _check_extents(equation, labels, [tuple(t.shape) for t in operands])
    alone = [x for term in labels for x in set(term) if sum(x in other for other in labels) == 1]
    if not operands[0].dtype.is_float and not set(alone) <= set(out):
        operands = tuple([convert(t, int64) for t in operands])  # PyTorch sums these first, as int64

    def build(*nodes: Node) -> Node:
        rest = [_diagonal(n, x) for n, x in zip(nodes, labels, strict=True)]
        node, names = rest.pop(0)
        while rest:
            other, theirs = rest.pop(0)
            keep = set(out).union(*[x for _, x in rest])
            node, names = _pair(node, names, other, theirs, keep)
        node, names = _sum_out(node, names, set(out))
        order = tuple(names.index(x) for x in out)
        return ops.transpose(node, order) if order else reshape_node(node, ())

    return apply("MmBackward0", build, *operands)
