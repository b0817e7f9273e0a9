"""Convolutions and their gradients through the contraction lowering, against NumPy's evaluation."""

from __future__ import annotations

import dataclasses

import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import float32, float64, int64
from graphc.loop import index as ix
from graphc.loop.inplace import statements
from graphc.loop.ir import Store, Var
from graphc.loop.lower.contraction import blocking
from graphc.loop.lower.convolution import pad
from graphc.loop.lower.ways import lower_contraction
from tests.loop.test_ways import CRAMPED, NARROW, WIDE, check, group_of, leaf, tiles


@dataclasses.dataclass(frozen=True)
class Case:
    """x [N, C, *S] with w [O, C/groups, *K]."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: int = 1
    low: int = 0
    high: int | None = None
    dilation: int = 1
    groups: int = 1

    @property
    def options(self) -> dict:
        rank = len(self.x) - 2
        high = self.low if self.high is None else self.high
        return {
            "stride": (self.stride,) * rank,
            "low": (self.low,) * rank,
            "high": (high,) * rank,
            "dilation": (self.dilation,) * rank,
            "groups": self.groups,
        }

    def forward(self, dtype=float32) -> Node:
        return ops.conv(leaf("x", *self.x, dtype=dtype), leaf("w", *self.w, dtype=dtype), **self.options)

    def input_grad(self, dtype=float32) -> Node:
        dy = leaf("dy", *self.forward().shape, dtype=dtype)
        return ops.conv_input_grad(dy, leaf("w", *self.w, dtype=dtype), self.x[2:], **self.options)

    def weight_grad(self, dtype=float32) -> Node:
        dy = leaf("dy", *self.forward().shape, dtype=dtype)
        return ops.conv_weight_grad(leaf("x", *self.x, dtype=dtype), dy, self.w[2:], **self.options)


CASES = {
    "3x3": Case((2, 5, 5, 6), (7, 5, 3, 3), low=1),
    "wide-rows": Case((1, 3, 2, 70), (5, 3, 1, 3), low=1),
    "1x1": Case((2, 12, 7, 7), (9, 12, 1, 1)),
    "1x1-stride-2": Case((2, 6, 8, 9), (5, 6, 1, 1), stride=2),
    "stem-7x7-stride-2": Case((1, 3, 8, 9), (4, 3, 7, 7), stride=2, low=3),
    "uneven-padding": Case((1, 4, 8, 8), (5, 4, 3, 3), low=2, high=0),
    "dilated": Case((1, 4, 7, 6), (6, 4, 3, 3), low=2, dilation=2),
    "strided-and-dilated": Case((1, 4, 11, 8), (6, 4, 3, 2), stride=2, low=1, dilation=3),
    "stride-3": Case((1, 4, 10, 9), (6, 4, 2, 2), stride=3),
    "grouped": Case((1, 8, 5, 6), (12, 4, 3, 3), low=1, groups=2),
    "depthwise": Case((2, 6, 9, 9), (6, 1, 3, 3), low=1, groups=6),
    "depthwise-stride-2": Case((1, 6, 9, 9), (12, 1, 3, 3), stride=2, low=1, groups=6),
    "1-d": Case((3, 5, 40), (6, 5, 4), stride=2, low=1),
    "3-d": Case((1, 4, 3, 3, 4), (5, 4, 2, 2, 3), low=1),
    "one-pixel-wide": Case((2, 8, 5, 1), (8, 8, 3, 3), low=1),
    "one-channel": Case((2, 1, 7, 7), (6, 1, 5, 5), low=2),
    "padding-on-one-side-only-matters": Case((2, 16, 33), (8, 4, 2), stride=3, low=2, groups=4),
    "phases-of-a-dilated-kernel": Case((1, 4, 12, 12), (20, 4, 3, 3), stride=3, low=1, dilation=2),
    "no-room-for-some-taps": Case((1, 4, 2, 2), (5, 4, 5, 5), low=2),
}
TWICE = ("3x3", "wide-rows", "strided-and-dilated", "grouped")  # also on a machine where panels are tiny
EACH = pytest.mark.parametrize(
    ("name", "machine"),
    [(n, WIDE) for n in CASES] + [(n, CRAMPED) for n in TWICE],
    ids=lambda p: p if isinstance(p, str) else p.name,
)


@EACH
def test_forward(name, machine):
    check(CASES[name].forward(), machine=machine)


@EACH
def test_input_grad(name, machine):
    check(CASES[name].input_grad(), machine=machine)


@EACH
def test_weight_grad(name, machine):
    check(CASES[name].weight_grad(), machine=machine)


@pytest.mark.parametrize("name", TWICE)
def test_weight_grad_without_padded_copies(name, monkeypatch):
    monkeypatch.setattr(pad, "SHORT", 0)
    for machine in (WIDE, CRAMPED):
        calls = check(CASES[name].weight_grad(), machine=machine)
        assert not any(c.kernel.name.endswith("_pad") for c in calls)


def test_padded_copies_only_where_windows_leave_the_input():
    def names(case: Case) -> list[str]:
        return [c.kernel.name for c in lower_contraction(group_of(case.weight_grad()), WIDE)]

    assert names(Case((2, 3, 8, 8), (4, 3, 3, 3), low=1))[0] == "conv_weight_grad_pad"
    assert "conv_weight_grad_pad" not in names(Case((2, 3, 8, 8), (4, 3, 3, 3)))
    assert "conv_weight_grad_pad" not in names(Case((2, 3, 8, 90), (4, 3, 3, 3), low=1))


@pytest.mark.parametrize("dtype", [float64, int64])
def test_other_dtypes(dtype):
    case = CASES["1-d"]
    for node in (case.forward(dtype), case.input_grad(dtype), case.weight_grad(dtype)):
        check(node, machine=NARROW, tolerance=1e-13)


def test_phases_of_a_strided_input_gradient_do_no_work_on_zeros():
    """A 1x1 kernel of stride 2 touches a quarter of the positions: the others are only stored as zeros,
    along with it, or by phases of their own."""
    plain = Case((1, 16, 12, 12), (16, 16, 1, 1), stride=2)
    padded = Case((1, 16, 11, 11), (16, 16, 1, 1), stride=2, low=1)
    for case, kernels, places in ((plain, 2, 6 * 6), (padded, 4, 5 * 5)):
        calls = check(case.input_grad())
        assert len(calls) == kernels
        flops = [c.kernel.flops for c in calls]
        assert sorted(flops)[:-1] == [0] * (kernels - 1)
        assert sum(flops) == 2 * 16 * 16 * places


def test_epilogue_of_a_convolution():
    product = Case((1, 8, 6, 10), (12, 8, 3, 3), low=1).forward()
    bias = ops.broadcast(leaf("bias", 12), product.shape, (1,))
    rest = leaf("rest", *product.shape)
    result = ops.maximum(ops.add(ops.add(product, bias), rest), ops.full(product.shape, 0.0, float32))
    check(result)
    check(result, machine=CRAMPED)


def test_update_fused_into_a_weight_gradient(monkeypatch):
    """w' = w - rate * dw, with the gradient summed from partial sums."""
    for name in ("SMALL", "KERNEL", "TASK"):  # kernels and tasks cost nothing: even a small problem is split
        monkeypatch.setattr(blocking, name, 1)
    grad = Case((4, 3, 8, 8), (8, 3, 3, 3), low=1).weight_grad()
    rate = ops.broadcast(leaf("rate"), grad.shape, ())
    calls = check(ops.sub(leaf("w", *grad.shape), ops.mul(rate, grad)), tolerance=1e-4)
    assert calls[-1].kernel.name == "conv_weight_grad_combine"
    assert tiles(calls)


def test_operand_through_padding_and_cast():
    x = ops.pad(ops.cast(leaf("x", 1, 4, 8, 8, dtype=int64), float32), (0, 0, 1, 1), (0, 0, 1, 1), 0.5)
    check(ops.conv(x, leaf("w", 8, 4, 3, 3)))


def test_group_of_anchors_is_lowered_once():
    node = CASES["3x3"].forward()
    assert group_of(node).outputs == (node,)


def test_results_of_a_weight_gradient_are_stored_across_its_taps():
    """Taps are contiguous, three at a time: vectors of results do not stop at their ends."""
    grad = Case((2, 6, 9, 9), (10, 6, 3, 3), low=1).weight_grad()
    calls = check(ops.add(leaf("w", *grad.shape), grad), machine=WIDE)
    last = calls[-1].kernel
    result = last.params[calls[-1].writes[0]]
    found = [s for s, _ in statements(last.body) if isinstance(s, Store) and s.buffer is result]
    (store,) = found
    (position,) = store.index
    assert any(
        v.extent > 3 and ix.linear(position, v) == 1 for v in ix.variables(position) if isinstance(v, Var)
    )


@pytest.mark.parametrize("space,images", [((14, 14), 4), ((6, 8), 1), ((40, 40), 2)])
def test_weight_gradients_of_points_read_the_result_gradient_in_place(space: tuple, images: int):
    """Pixels of an image are K in one stride, those of several are not: blocks of K end where images do."""
    case = Case((images, 24, *space), (96, 24, 1, 1))
    for tile in tiles(check(case.weight_grad())):
        assert tile.a.buffer.space == "param"
