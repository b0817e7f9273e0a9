"""Whole training steps of networks without recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench import networks
from tests.bench.workload import Training, Workload, classes, integers
from tests.parity import models

MOMENTUM = {"lr": 0.01, "momentum": 0.9}


def _circles_data() -> tuple[np.ndarray, np.ndarray]:
    """Two concentric rings with noise, 50 points each, and which ring a point is of."""
    random = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    ring = np.stack((np.cos(angle), np.sin(angle)), 1)
    points = np.concatenate((ring, 0.8 * ring)) + 0.03 * random.standard_normal((100, 2))
    return points.astype(np.float32), np.repeat([[0.0], [1.0]], 50, 0).astype(np.float32)


def _imagenet(net: Any, batch: int, size: int, gflop: float) -> Training:
    return Training(net, classes((batch, 3, size, size), 1000), options=MOMENTUM, flops=gflop * 1e9)


# Operations of the matrix products and convolutions of one step, forward and backward, counted by hand.
WORKLOADS: dict[str, Workload] = {
    "mlp": Training(networks.mlp, classes((128, 784), 10), options=MOMENTUM, flops=0.411e9),
    "mlp_adam": Training(
        networks.mlp, classes((128, 784), 10), optimizer="Adam", options={"lr": 1e-3}, flops=0.411e9
    ),
    "circles": Training(networks.circles, _circles_data, "BCEWithLogitsLoss", "Adam", {"lr": 0.01}),
    "lenet": Training(models.lenet, classes((64, 1, 28, 28), 10), options=MOMENTUM, flops=0.145e9),
    "digits": Training(
        models.digits_cnn, classes((64, 1, 8, 8), 10), optimizer="AdamW", options={"lr": 1e-3}
    ),
    "resnet18_cifar": Training(
        models.resnet18, classes((32, 3, 32, 32), 10), options=MOMENTUM, flops=106.5e9
    ),
    "vgg11_cifar": Training(networks.vgg11, classes((32, 3, 32, 32), 10), options=MOMENTUM, flops=29.4e9),
    "resnet50_imagenet": _imagenet(networks.resnet50, 4, 224, 97.2),
    "mobilenetv2": _imagenet(networks.mobilenetv2, 16, 96, 5.3),
    "unet": Training(
        networks.unet,
        lambda: (
            np.random.default_rng(0).standard_normal((4, 3, 128, 128), np.float32),
            integers(8, 4, 128, 128),
        ),
        options=MOMENTUM,
    ),
}
