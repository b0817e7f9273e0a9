"""How near the machine's limits convolutions and their gradients run, layer by layer, beside PyTorch where it
is installed.

    python -m tests.bench.convolutions                          # every layer, one thread
    python -m tests.bench.convolutions --layers 1x1,depthwise   # names that begin so
    python -m tests.bench.convolutions --parts dx,dw --kernels  # both gradients, with the time of each kernel

Timed as `tests.bench.contractions` does, on arrays that begin on cache lines, as all do within a network.
"of peak" counts the multiply-adds of the direct algorithm (Winograd's does fewer), "of copy" the least
traffic, both against what the machine was measured to do in the same run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from graphc import ops, pipeline
from graphc.arrays import aligned_copy, aligned_empty
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float32
from graphc.ops.window import window_count
from tests.bench.contractions import fastest
from tests.bench.peak import bandwidth, fma_peak

PARTS = ("y", "dx", "dw")


@dataclass(frozen=True)
class Layer:
    """A convolution: `batch` x `cin` planes of `space`, windows of `kernel` in every direction."""

    cin: int
    cout: int
    kernel: int
    space: tuple[int, ...]
    stride: int = 1
    pad: int | None = None
    dilation: int = 1
    groups: int = 1
    batch: int = 8

    @property
    def low(self) -> int:
        return self.dilation * (self.kernel - 1) // 2 if self.pad is None else self.pad

    @property
    def out(self) -> tuple[int, ...]:
        low = self.low
        return tuple(window_count(e, self.kernel, self.stride, low, low, self.dilation) for e in self.space)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of x, w and y."""
        rank = len(self.space)
        return {
            "x": (self.batch, self.cin, *self.space),
            "w": (self.cout, self.cin // self.groups, *(self.kernel,) * rank),
            "y": (self.batch, self.cout, *self.out),
        }

    @property
    def flops(self) -> float:
        """Of each of the three parts."""
        shapes = self.shapes()
        return 2.0 * np.prod(shapes["y"]) * np.prod(shapes["w"][1:])

    @property
    def bytes(self) -> float:
        """The least that each of the three parts moves: every array once."""
        return 4.0 * sum(float(np.prod(s)) for s in self.shapes().values())

    def graph(self, part: str) -> Graph:
        """y of (x, w); dx of (dy, w); dw of (x, dy)."""
        shapes, rank = self.shapes(), len(self.space)
        names = {"y": "xw", "dx": "yw", "dw": "xy"}[part]
        a, b = (ops.input_(n, TensorType(shapes[n], float32)) for n in names)
        axes = ((self.stride,) * rank, (self.low,) * rank, (self.low,) * rank, (self.dilation,) * rank)
        result: Node
        if part == "y":
            result = ops.conv(a, b, *axes, self.groups)
        elif part == "dx":
            result = ops.conv_input_grad(a, b, self.space, *axes, self.groups)
        else:
            result = ops.conv_weight_grad(a, b, shapes["w"][2:], *axes, self.groups)
        return Graph((a, b), (result,))


def _layers() -> dict[str, Layer]:
    plane = {s: (s, s) for s in (7, 8, 14, 16, 24, 28, 32, 48, 56, 64, 96, 112, 224)}
    found = {}
    for a, b, s in ((64, 64, 56), (256, 64, 56), (64, 256, 56), (512, 128, 28), (128, 512, 28),
                    (1024, 256, 14), (256, 1024, 14), (2048, 512, 7), (512, 2048, 7),
                    (96, 384, 48), (192, 128, 32), (24, 144, 24),
                    (32, 2, 64)):  # fmt: skip
        found[f"1x1_{a}_{b}_{s}"] = Layer(a, b, 1, plane[s])
    for a, b, s in ((256, 512, 56), (512, 1024, 28), (1024, 2048, 14), (64, 128, 56)):
        found[f"1x1s2_{a}_{b}_{s}"] = Layer(a, b, 1, plane[s], 2)
    for c, s in ((32, 64), (64, 56), (128, 28), (256, 14), (512, 7)):
        found[f"3x3_{c}_{s}"] = Layer(c, c, 3, plane[s])
    found["3x3_128_32_32"] = Layer(128, 32, 3, plane[32])
    for a, b, s in ((128, 128, 56), (256, 256, 28), (512, 512, 14), (64, 128, 56), (32, 64, 64)):
        found[f"3x3s2_{a}_{b}_{s}"] = Layer(a, b, 3, plane[s], 2)
    found["stem7x7s2_224"] = Layer(3, 64, 7, plane[224], 2)
    found["stem3x3s2_224"] = Layer(3, 32, 3, plane[224], 2)
    found["stem3x3_32"] = Layer(3, 64, 3, plane[32], batch=16)
    found["stem3x3_64"] = Layer(3, 32, 3, plane[64])
    found["stem4x4s4_96"] = Layer(3, 96, 4, plane[96], 4, 0)
    found["stem5x5_28"] = Layer(1, 6, 5, plane[28], batch=64)
    found["patch2x2s2_96_192"] = Layer(96, 192, 2, plane[24], 2, 0)
    for c, k, s, t in ((144, 3, 56, 1), (96, 3, 112, 2), (384, 3, 14, 1), (960, 3, 7, 1), (144, 3, 56, 2),
                       (144, 5, 28, 1), (240, 5, 28, 2), (672, 5, 14, 1), (1152, 5, 7, 1), (96, 7, 24, 1),
                       (96, 7, 56, 1), (384, 7, 14, 1)):  # fmt: skip
        found[f"depthwise{k}x{k}{'s2' if t > 1 else ''}_{c}_{s}"] = Layer(c, c, k, plane[s], t, groups=c)
    for c, s, t in ((128, 56, 1), (256, 28, 1), (512, 14, 1), (1024, 7, 1), (256, 56, 2), (128, 8, 1)):
        found[f"grouped3x3{'s2' if t > 1 else ''}_{c}_{s}"] = Layer(c, c, 3, plane[s], t, groups=32)
    cube = (16, 32, 32)
    found["3d_3_32"] = Layer(3, 32, 3, cube, batch=2)
    found["3d_32_64"] = Layer(32, 64, 3, (8, 16, 16), batch=2)
    found["3d_64_64"] = Layer(64, 64, 3, (4, 8, 8), batch=2)
    found["3d_64_64_28"] = Layer(64, 64, 3, (8, 28, 28), batch=2)
    found["3d_s2_32_64"] = Layer(32, 64, 3, cube, 2, batch=2)
    found["up2x2_128_64"] = Layer(64, 128, 2, plane[32], 2, 0)  # ConvTranspose2d(128, 64)
    found["up4x4_64_32"] = Layer(32, 64, 4, plane[16], 2, 1, batch=32)
    found["up4x4_32_3"] = Layer(3, 32, 4, plane[32], 2, 1, batch=32)
    found["dilated3x3_64_56_2"] = Layer(64, 64, 3, plane[56], dilation=2)
    found["dilated3x3_256_28_4"] = Layer(256, 256, 3, plane[28], dilation=4)
    found["5x5_32_64_32"] = Layer(32, 64, 5, plane[32])
    found["5x5s2_64_128_32"] = Layer(64, 128, 5, plane[32], 2)
    found["4x4s2_64_128_32"] = Layer(64, 128, 4, plane[32], 2, 1)
    for d in (1, 4, 16):
        found[f"1d_64_256_{d}"] = Layer(64, 64, 3, (256,), dilation=d, batch=32)
    found["1d_16_64"] = Layer(16, 64, 3, (256,), batch=32)
    found["1d_s2_1_32"] = Layer(1, 32, 9, (4096,), 2, batch=8)
    return found


LAYERS = _layers()


def graphc_run(graph: Graph, arrays: list[np.ndarray]) -> tuple[Callable[[], Any], np.ndarray, Any]:
    """(a call of the kernels, the array that they write, what runs them)."""
    executable = pipeline.compile(graph).code.executable
    (result,) = graph.outputs
    out = aligned_empty(result.shape, result.dtype.numpy)
    executable.bind(arrays, [out])
    return executable.run, out, executable


def torch_run(layer: Layer, part: str, arrays: list[np.ndarray]) -> Callable[[], Any] | None:
    """The same as PyTorch's eager call; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    a, b = (torch.from_numpy(x) for x in arrays)
    rank, shapes = len(layer.space), layer.shapes()
    axes = [[n] * rank for n in (layer.stride, layer.low, layer.dilation)]
    options = (*axes, False, [0] * rank, layer.groups)
    if part == "y":
        return lambda: torch.convolution(a, b, None, *options)
    backward = torch.ops.aten.convolution_backward
    if part == "dx":
        x = torch.empty(shapes["x"])
        return lambda: backward(a, x, b, None, *options, [True, False, False])[0]
    w = torch.empty(shapes["w"])
    return lambda: backward(b, a, w, None, *options, [False, True, False])[1]


def measure(layer: Layer, part: str, seconds: float) -> tuple[float, float | None, list[tuple[str, float]]]:
    """Least seconds of a run, graphc's and PyTorch's, and graphc's kernels with the microseconds of each.
    Raises AssertionError if their results differ."""
    rng = np.random.default_rng(0)
    graph = layer.graph(part)
    arrays = [aligned_copy(rng.standard_normal(x.shape).astype(np.float32)) for x in graph.inputs]
    run, out, executable = graphc_run(graph, arrays)
    other = torch_run(layer, part, arrays)
    run()
    if other is not None:
        np.testing.assert_allclose(out, other().numpy(), rtol=0, atol=1e-4 * np.abs(out).max())
    best = fastest([r for r in (run, other) if r is not None], seconds)
    return best[0], best[1] if other is not None else None, executable.profile(3)


def table(names: Iterable[str], parts: Iterable[str], seconds: float, kernels: bool = False) -> str:
    """Markdown, a line for every layer and part; with `kernels`, the microseconds of each behind it."""
    lines = ["| layer | part | graphc, us | of peak | of copy | torch / graphc |", "|---|---|" + "---:|" * 4]
    copy = bandwidth("copy", 0.3)
    for name in names:
        layer = LAYERS[name]
        for part in parts:
            peak = fma_peak("f32", 0.05)
            own, other, profile = measure(layer, part, seconds)
            ratio = "" if other is None else f"{other / own:.2f}"
            cells = (name, part, f"{1e6 * own:.1f}", f"{layer.flops / own / 1e9 / peak:.2f}",
                     f"{layer.bytes / own / 1e9 / copy:.2f}", ratio)  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
            if kernels:
                lines[-1] += " " + ", ".join(f"{kernel} {us:.0f}" for kernel, us in profile)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default="", help="beginnings of names, with commas between")
    parser.add_argument("--parts", default=",".join(PARTS), help="of y, dx and dw, with commas between")
    parser.add_argument("--seconds", type=float, default=0.1, help="least processor time of a part")
    parser.add_argument("--kernels", action="store_true", help="the time of each kernel too")
    args = parser.parse_args()
    graphc.set_num_threads(1)
    starts = tuple(args.layers.split(","))
    names = [name for name in LAYERS if name.startswith(starts)]
    print(table(names, args.parts.split(","), args.seconds, args.kernels))


if __name__ == "__main__":
    main()
