"""Convolutions of the usual networks at batch 8, and what they cost with both gradients."""

from __future__ import annotations

from typing import Any

from tests.bench.workload import Operator, Workload, floats

BATCH = 8


def _convolution(cin: int, cout: int, kernel: int, size: int, stride: int = 1, groups: int = 1) -> Workload:
    """Forward and backward; a network's first layer (3 channels) needs no gradient of its input."""

    def function(T: Any) -> Any:
        conv2d = T.nn.functional.conv2d
        return lambda x, w: conv2d(x, w, stride=stride, padding=kernel // 2, groups=groups)

    out = size // stride
    gradients = (1,) if cin == 3 else (0, 1)
    forward = 2.0 * BATCH * out * out * cout * (cin // groups) * kernel * kernel
    depthwise = groups > 1
    return Operator(
        function,
        floats((BATCH, cin, size, size), (cout, cin // groups, kernel, kernel)),
        gradients,
        flops=0.0 if depthwise else forward * (1 + len(gradients)),
    )


WORKLOADS: dict[str, Workload] = {
    "conv7x7s2_3_64_224": _convolution(3, 64, 7, 224, 2),
    "conv3x3_64_64_56": _convolution(64, 64, 3, 56),
    "conv3x3_128_128_28": _convolution(128, 128, 3, 28),
    "conv3x3_256_256_14": _convolution(256, 256, 3, 14),
    "conv3x3_512_512_7": _convolution(512, 512, 3, 7),
    "conv1x1_256_64_56": _convolution(256, 64, 1, 56),
    "conv1x1_64_256_56": _convolution(64, 256, 1, 56),
    "conv3x3s2_128_128_56": _convolution(128, 128, 3, 56, 2),
    "depthwise3x3_144_56": _convolution(144, 144, 3, 56, groups=144),
}
