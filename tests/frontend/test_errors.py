"""Mistakes: the exception's type, PyTorch's words, and where it happened."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import TracerError, nn

A, B = (2, 3), (4, 5)


def ones(*shape: int) -> gc.Tensor:
    return gc.ones(*shape)


def leaf() -> gc.Tensor:
    return gc.ones(3, requires_grad=True)


def twice() -> None:
    loss = (leaf() ** 2).sum()
    loss.backward()
    loss.backward()


class Wrong(gc.autograd.Function):
    """Its gradient has another shape than its input."""

    @staticmethod
    def forward(ctx: Any, x: gc.Tensor) -> gc.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: gc.Tensor) -> gc.Tensor:
        return g[:1]


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ones(*A) @ ones(*B), RuntimeError, "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    (
        lambda: ones(*A) + ones(*B),
        RuntimeError,
        "The size of tensor a (3) must match the size of tensor b (5)",
    ),
    (
        lambda: ones(*A) @ ones(3).double(),
        RuntimeError,
        "to have the same dtype, but got: float32 != float64",
    ),
    (lambda: gc.mm(ones(2), ones(*A)), RuntimeError, "self must be a matrix, got 1D tensor"),
    (lambda: gc.bmm(ones(2, 3, 4), ones(2, 3, 4)), RuntimeError, "Expected size for first two dimensions"),
    (lambda: ones(*A).view(4), RuntimeError, "shape '[4]' is invalid for input of size 6"),
    (lambda: ones(*A).reshape(-1, -1), RuntimeError, "only one dimension can be inferred"),
    (
        lambda: ones(*A).sum(2),
        IndexError,
        "Dimension out of range (expected to be in range of [-2, 1], but got 2)",
    ),
    (lambda: ones(*A).sum((0, 0)), RuntimeError, "dim 0 appears multiple times"),
    (lambda: gc.arange(3).mean(), RuntimeError, "could not infer output dtype"),
    (lambda: ones(*A).expand(3, 3), RuntimeError, "must match the existing size (2)"),
    (lambda: gc.cat([ones(*A), ones(*B)]), RuntimeError, "Sizes of tensors must match except in dimension 0"),
    (lambda: gc.full((2,), "a"), TypeError, "'fill_value' must be Number, not str"),
    (lambda: gc.normal(0.0, -1.0, (2,)), RuntimeError, "normal expects std >= 0.0, but found std -1.0"),
    (lambda: ones(2).bernoulli(2.0), RuntimeError, "bernoulli expects p to be in [0, 1], but got p=2.0"),
    (lambda: ones(2).bernoulli_(-0.5), RuntimeError, "bernoulli expects p to be in [0, 1], but got p=-0.5"),
    (lambda: nn.functional.unfold(ones(1, 1, 3, 3), 5), RuntimeError, "does not fit an image of (3, 3)"),
    (lambda: gc.stack([ones(2), ones(3)]), RuntimeError, "stack expects each tensor to be equal size"),
    (lambda: ones(*A)[5], IndexError, "index 5 is out of bounds for dimension 0 with size 2"),
    (lambda: ones(*A)[0, 0, 0], IndexError, "too many indices for tensor of dimension 2"),
    (lambda: ones(*A)[::-1], ValueError, "step must be greater than zero"),
    (lambda: ones(*A)[1.5], IndexError, "only integers, slices"),
    (lambda: ones(*A)["x"], TypeError, "only integers, slices"),
    (lambda: ones(*A)[gc.tensor([0, 7])], IndexError, "index 7 is out of bounds for dimension 0 with size 2"),
    (lambda: ones(*A)[gc.tensor([True])], IndexError, "The shape of the mask [1]"),
    (lambda: ones(*A).gather(1, gc.tensor([[3]])), IndexError, "out of bounds for dimension 1 with size 3"),
    (
        lambda: ones(*A).__setitem__(0, ones(4)),
        RuntimeError,
        "cannot be broadcast to indexing result of shape [3]",
    ),
    (lambda: bool(ones(2)), RuntimeError, "Boolean value of Tensor with more than one value is ambiguous"),
    (lambda: ones(2).item(), RuntimeError, "a Tensor with 2 elements cannot be converted to Scalar"),
    (
        lambda: float(ones(2)),
        ValueError,
        "only one element tensors can be converted to Python scalars, not 2",
    ),
    (lambda: len(gc.tensor(1)), TypeError, "len() of a 0-d tensor"),
    (lambda: iter(gc.tensor(1)), TypeError, "iteration over a 0-d tensor"),
    (lambda: leaf().numpy(), RuntimeError, "Can't call numpy() on Tensor that requires grad"),
    (
        lambda: leaf().add_(1),
        RuntimeError,
        "a leaf Variable that requires grad is being used in an in-place operation.",
    ),
    (lambda: leaf()[0].add_(1), RuntimeError, "a view of a leaf Variable that requires grad is being used"),
    (lambda: leaf().__setitem__(0, 1.0), RuntimeError, "a view of a leaf Variable that requires grad"),
    (
        lambda: gc.arange(3).add_(0.5),
        RuntimeError,
        "result type Float can't be cast to the desired output type Long",
    ),
    (
        lambda: ones(3).add_(ones(2, 3)),
        RuntimeError,
        "output with shape [3] doesn't match the broadcast shape [2, 3]",
    ),
    (lambda: ones(3).expand(2, 3).add_(1), RuntimeError, "more than one element of the written-to tensor"),
    (lambda: leaf().backward(), RuntimeError, "grad can be implicitly created only for scalar outputs"),
    (lambda: ones(3).sum().backward(), RuntimeError, "does not require grad and does not have a grad_fn"),
    (twice, RuntimeError, "Trying to backward through the graph a second time"),
    (
        lambda: gc.autograd.grad(leaf().sum(), leaf()),
        RuntimeError,
        "appears to not have been used in the graph",
    ),
    (
        lambda: gc.arange(3).requires_grad_(),
        RuntimeError,
        "only Tensors of floating point dtype can require gradients",
    ),
    (
        lambda: -gc.tensor([True]),
        RuntimeError,
        "Negation, the `-` operator, on a bool tensor is not supported",
    ),
    (
        lambda: gc.tensor([True]) - gc.tensor([True]),
        RuntimeError,
        "Subtraction, the `-` operator, with two bool tensors",
    ),
    (lambda: gc.arange(3) ** -1, RuntimeError, "Integers to negative integer powers are not allowed."),
    (lambda: gc.tensor([[1], [2, 3]]), ValueError, "expected sequence of length 1 at dim 1 (got 2)"),
    (lambda: gc.tensor([[[1], [2, 3]]] * 2), ValueError, "expected sequence of length 1 at dim 2 (got 2)"),
    (lambda: gc.tensor([[1], 2]), ValueError, "expected sequence of length 1 at dim 1 (got a number)"),
    (lambda: gc.tensor([1, [2]]), ValueError, "expected sequence of length 1 at dim 1 (got a number)"),
    (lambda: gc.tensor("x"), TypeError, "str"),
    (lambda: gc.tensor(["x"]), TypeError, "invalid data type 'str'"),
    (lambda: gc.sum(ones(2), axsis=0), TypeError, "sum() got an unexpected keyword argument 'axsis'"),
    (lambda: ones(2).backward(axsis=0), TypeError, "backward() got an unexpected keyword"),
    (lambda: nn.Linear(2, 2)([1.0, 2.0]), TypeError, "must be Tensor, not list (graphc.tensor makes one)"),
    (lambda: nn.Linear(2, 2)(np.ones(2)), TypeError, "not ndarray (graphc.from_numpy makes one)"),
    (lambda: nn.Linear(2, 2)(nn.GRU(2, 2)(ones(3, 2))), TypeError, "take the output out of it"),
    (lambda: ones(*A).sum("1"), TypeError, "a dim must be an int, not str '1'"),
    (lambda: ones(*A).sum(1.0), TypeError, "a dim must be an int, not float 1.0"),
    (lambda: f"{ones(2):.2f}", TypeError, "unsupported format string '.2f' passed to Tensor.__format__"),
    (lambda: nn.Linear(2, 2).cuda(), RuntimeError, "graphc computes on the CPU only"),
    (lambda: nn.Linear(2, 2).to("cuda"), RuntimeError, "graphc computes on the CPU only"),
    (lambda: gc.save({}, "/no/such/folder/x"), FileNotFoundError, "there is no such folder"),
    (lambda: nn.functional.interpolate(ones(2, 3), 4), NotImplementedError, "needs 3D, 4D or 5D input"),
    (lambda: nn.functional.one_hot(gc.tensor([-1])), RuntimeError, "Class values must be non-negative"),
    (lambda: Wrong()(leaf()), RuntimeError, "call Wrong.apply"),
    (lambda: Wrong.apply(leaf()).sum().backward(), RuntimeError, "invalid gradient at index 0 - got [1]"),
    (
        lambda: gc.compile(gc.unique)(ones(2)),
        TracerError,
        "unique(): the number of distinct elements depends",
    ),
    (lambda: gc.compile(gc.bincount)(gc.arange(2)), TracerError, "bincount(): the number of counts depends"),
    (lambda: gc.compile(nn.functional.one_hot)(gc.arange(2)), TracerError, "give num_classes"),
    (
        lambda: gc.compile(ones(2).repeat_interleave)(gc.arange(2)),
        TracerError,
        "the number of copies depends",
    ),
    (lambda: gc.compile(gc.unique_consecutive)(ones(2)), TracerError, "unique_consecutive(): the number"),
    (lambda: nn.Sequential(nn.ReLU), TypeError, "ReLU is not a Module subclass instance: write ReLU()"),
    (lambda: nn.Sequential(gc.relu), TypeError, "relu is not a Module subclass"),
    (lambda: nn.MSELoss(ones(2), ones(2)), TypeError, "a loss is made first and called then"),
    (lambda: nn.CrossEntropyLoss(ones(1), ones(1)), TypeError, "a loss is made first and called then"),
    (lambda: gc.zeros(2, -1), RuntimeError, "negative dimension -1"),
    (lambda: ones(2).to("cuda"), RuntimeError, "graphc computes on the CPU only"),
    (lambda: ones(2) + "x", TypeError, "unsupported operand type"),
    (lambda: gc.einsum("ij,jk->ik", ones(2, 3), ones(4, 5)), RuntimeError, "subscript j has size 4"),
    (lambda: gc.compile(ones, backend="nonsense"), ValueError, "unknown backend 'nonsense'"),
    (lambda: setattr(leaf(), "grad", ones(4)), RuntimeError, "assigned grad has data of a different size"),
]


@pytest.mark.parametrize("mistake, error, text", CASES, ids=[c[2][:40] for c in CASES])
def test_error(mistake: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        mistake()
    assert text in str(caught.value)


def test_misspelt_names_are_told_apart() -> None:
    """Python suggests a name where it knows the object that was asked."""
    for asked, name in ((gc, "zeros_lik"), (nn.Linear(2, 2), "wieght"), (ones(2), "sumn")):
        with pytest.raises(AttributeError) as caught:
            getattr(asked, name)
        assert (caught.value.name, caught.value.obj) == (name, asked)


def test_the_line_is_the_users_not_that_of_pythons_library() -> None:
    with pytest.raises(RuntimeError) as caught:
        copy.deepcopy(leaf() * 2)
    assert "test_errors.py" in str(caught.value)


def test_error_names_file_line_and_module() -> None:
    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(3, 4)

        def forward(self, x: gc.Tensor) -> gc.Tensor:
            return self.fc1(x)

    with pytest.raises(RuntimeError) as caught:
        LeNet()(ones(2, 5))
    text = str(caught.value)
    assert "test_errors.py:" in text
    assert "LeNet.fc1" in text
    assert "5" in text
    assert "3" in text


def test_failed_in_place_changes_nothing() -> None:
    x = leaf()
    with pytest.raises(RuntimeError):
        x.mul_(2)
    y = ones(3)
    with pytest.raises(RuntimeError):
        y += ones(2, 3)
    assert x.tolist() == y.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "refused",
    [
        lambda T: T.tensor([1]) - T.tensor([True]),
        lambda T: True - T.tensor([1.0]),
        lambda T: T.tensor([1.0]).sub_(True),
        lambda T: T.ones(2).lerp_(T.ones(2, dtype=T.float64), 0.5),
        lambda T: T.ones(2).lerp(T.ones(2), T.ones(2, dtype=T.float64)),
        lambda T: T.ones(2) & T.ones(2),
        lambda T: 3 | T.ones(2),
        lambda T: T.bitwise_not(T.ones(2)),
    ],
)
def test_refused_dtypes_as_torch_refuses_them(refused: Callable[[Any], Any]) -> None:
    """The same class, and the same beginning of the message."""
    torch = pytest.importorskip("torch")
    raised = []
    for T in (torch, gc):
        with pytest.raises(RuntimeError) as caught:
            refused(T)
        raised.append(caught)
    assert raised[0].type is raised[1].type
    assert str(raised[1].value)[:20] == str(raised[0].value)[:20]
