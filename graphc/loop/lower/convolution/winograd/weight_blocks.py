"""Winograd weight gradients of few tiles: all transformed ahead, and blocks of dU finished at once.

V and M lie in the order in which tasks read them: [block of channels][point][tile][channel of the block].
"""

from __future__ import annotations

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Expr, Var, address, load
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.pack import padded
from graphc.loop.lower.convolution.winograd.strips import Strip, Tiles
from graphc.loop.lower.convolution.winograd.weight_plan import Plan
from graphc.loop.lower.convolution.winograd.weight_tiles import Back, operands_of, put_product
from graphc.loop.lowered import KernelCall, Temp

MOST_TASKS = 32


def weight_block_calls(node: Node, plan: Plan, group: Group) -> list[KernelCall]:
    """The kernels of the group around a conv_weight_grad: two transforms, and the products."""
    x, dy = operands_of(node, plan)
    name = node.op.name
    v, first = _ahead_call(x, plan, plan.ins, plan.in_block, Fused(group, node), f"{name}_data")
    m, second = _ahead_call(dy, plan, plan.outs, plan.out_block, Fused(group, node), f"{name}_grads")
    return [first, second, _blocks_call(plan, m, v, Fused(group, node), f"{name}_winograd")]


def _ahead_call(
    tiles: Tiles, plan: Plan, channels: int, block: int, fused: Fused, name: str
) -> tuple[Temp, KernelCall]:
    """(the transformed tiles of a side, the kernel that computes them)."""
    w, dtype, pitch = fused.scope, fused.anchor.dtype, plan.pitch(block)
    per_group = channels // block
    count = plan.groups * per_group
    size = padded(plan.strips * plan.tiles[1] * pitch, dtype.itemsize)
    temp = Temp("points", TensorType((count, plan.points, size), dtype))
    shares = max(1, min(plan.strips, MOST_TASKS // count))
    chunk = -(-plan.strips // shares)
    task = Var(int64, "task", count * -(-plan.strips // chunk))
    number, share = ix.unflatten(task, (count, task.extent // count))
    side = Strip(tiles, fused, block, plan.rows, plan.width)
    first = ix.mul(share, chunk)
    with w.loop("s", ix.minimum(chunk, ix.sub(plan.strips, first)), chunk) as s:
        strip = ix.add(first, s)
        image, row = ix.unflatten(strip, (plan.images, plan.tiles[0]))
        tile0 = ix.mul(strip, plan.tiles[1])

        def put(point: Expr, tile: Expr, c: Expr, value: Expr) -> None:
            fused.store_temp(temp, (number, point, ix.add(ix.mul(ix.add(tile0, tile), pitch), c)), value)

        side.transform(ix.ZERO, image, row, ix.mul(number, block), put)
    return temp, fused.call(name, task, task.extent, 0.0)


def _blocks_call(plan: Plan, m: Temp, v: Temp, fused: Fused, name: str) -> KernelCall:
    """The kernel that multiplies and finishes; tasks that follow each other share their part of M."""
    w = fused.scope
    ms, vs = fused.buffer(m), fused.buffer(v)
    outs, ins, pitch = plan.out_block, plan.in_block, plan.pitch(plan.in_block)
    task = Var(int64, "task", plan.tasks)
    group, _, out, in_, _ = ix.unflatten(task, plan.task_space)
    m_block = ix.add(ix.mul(group, plan.outs // outs), out)
    v_block = ix.add(ix.mul(group, plan.ins // ins), in_)
    sums = w.alloc("sums", fused.anchor.dtype, (plan.points, outs, pitch))
    back = Back(fused, plan, ins)
    with w.loop("p", plan.points) as point:
        put_product(
            fused,
            plan,
            ix.const(plan.strips * plan.tiles[1]),
            (lambda row: address(ms, (m_block, point, row)), plan.pitch(outs)),
            (lambda col: address(vs, (v_block, point, col)), pitch),
            lambda row, col: address(sums, (point, row, col)),
            pitch,
            False,
        )
    with w.loop("i", outs) as i:
        back.finish(
            ix.add(ix.mul(m_block, outs), i),
            ix.mul(in_, ins),
            lambda place, column, c: load(sums, (ix.add(column, place * plan.size[1]), i, c)),
        )
    return fused.call(name, task, task.extent, plan.flops)
