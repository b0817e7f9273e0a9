"""Which kernels run depthwise convolutions, and what they cost."""

from __future__ import annotations

import math

from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.loop.lower.convolution.depthwise.in_place import InPlace, reads_in_place
from graphc.loop.lower.convolution.depthwise.on_planes import OnPlanes
from graphc.loop.lower.convolution.planes import Layout, forward_layout, gradient_layout
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

MOST_TAPS = 64  # taps that are written out
FEWEST = 8  # channels from which on tasks that are whole channels suffice
FINISHED, FILLED = 8.0, 5.0  # cycles to store a vector in order, and to copy one to planes
READ = 2.5  # cycles to read a vector under all taps of a row, where it is


def depthwise_calls(group: Group, anchor: Node, machine: Machine) -> tuple[KernelCall, ...] | None:
    """The kernel of a group around a depthwise convolution or one of its gradients; None if `anchor` is
    something else, or its windows or planes are too large."""
    if not _is_depthwise(anchor):
        return None
    layout = _layout(anchor)
    kernel: InPlace | OnPlanes
    if reads_in_place(group, anchor, layout, machine):
        kernel = InPlace(group, anchor, layout, machine)
    elif _has_room(layout, anchor, machine):
        kernel = OnPlanes(group, anchor, layout, machine)
    else:
        return None
    return (kernel.weight_grad() if anchor.op.name == "conv_weight_grad" else kernel.results(),)


def depthwise_cost(anchor: Node, machine: Machine) -> float | None:
    """Cycles of the kernel of a forward convolution on one core (as long as the second-level cache keeps up);
    None if it is none that `depthwise_calls` runs."""
    if anchor.op.name != "conv" or not _is_depthwise(anchor):
        return None
    layout, width = _layout(anchor), machine.lanes(anchor.dtype.itemsize)
    results = anchor.type.size // anchor.shape[-1] * -(-anchor.shape[-1] // width)
    sources = anchor.inputs[0].type.size / width * anchor.attrs.stride[-1]
    cycles = results * (math.prod(anchor.attrs.kernel) + FINISHED)
    if reads_in_place(Group((anchor,), anchor.inputs, (anchor,)), anchor, layout, machine):
        return cycles + sources * READ
    return cycles + sources * FILLED if _has_room(layout, anchor, machine) else None


def _layout(anchor: Node) -> Layout:
    """Planes of what is read under the windows."""
    if anchor.op.name == "conv_input_grad":
        return gradient_layout(anchor)
    results = anchor if anchor.op.name == "conv" else anchor.inputs[1]
    return forward_layout(anchor.attrs, results.shape[2:])


def _has_room(layout: Layout, anchor: Node, machine: Machine) -> bool:
    """Whether the planes of a channel stay in the second-level cache, with what else a task needs."""
    return 3 * layout.elements * anchor.dtype.itemsize <= machine.l2_bytes // 2


def _is_depthwise(node: Node) -> bool:
    """Whether each channel has one filter, of several taps that can be written out."""
    if node.kind is not Kind.CONV or not node.dtype.is_float or not node.type.size:
        return False
    at, channels = node.attrs, node.inputs[0].shape[1]
    if at.last:
        return False
    weight = node.shape if node.op.name == "conv_weight_grad" else node.inputs[1].shape
    if weight[:2] != (channels, 1) or at.groups != channels or not all(x.type.size for x in node.inputs):
        return False
    if not 1 < math.prod(at.kernel) <= MOST_TAPS:
        return False
    return node.op.name != "conv_weight_grad" or channels >= FEWEST
