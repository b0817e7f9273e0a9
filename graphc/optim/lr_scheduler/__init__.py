"""Learning-rate schedules, with PyTorch's names."""

from graphc.optim.lr_scheduler.base import LRScheduler, _LRScheduler
from graphc.optim.lr_scheduler.combine import ChainedScheduler, SequentialLR
from graphc.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from graphc.optim.lr_scheduler.cycle import CyclicLR, OneCycleLR
from graphc.optim.lr_scheduler.plateau import ReduceLROnPlateau
from graphc.optim.lr_scheduler.simple import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "_LRScheduler",
]
