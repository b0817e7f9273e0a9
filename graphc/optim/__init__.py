"""Optimizers and learning-rate schedules, with PyTorch's names."""

from graphc.optim import lr_scheduler, swa_utils
from graphc.optim.adadelta import Adadelta
from graphc.optim.adafactor import Adafactor
from graphc.optim.adagrad import Adagrad
from graphc.optim.adam import Adam, AdamW
from graphc.optim.adamax import Adamax
from graphc.optim.asgd import ASGD
from graphc.optim.lbfgs import LBFGS
from graphc.optim.muon import Muon
from graphc.optim.nadam import NAdam
from graphc.optim.optimizer import Optimizer
from graphc.optim.radam import RAdam
from graphc.optim.rmsprop import RMSprop
from graphc.optim.rprop import Rprop
from graphc.optim.sgd import SGD
from graphc.optim.sparse_adam import SparseAdam
from graphc.paths import module_at

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
    "swa_utils",
]

module_at("graphc.optim.adamw", {"AdamW": AdamW}, "AdamW, by the path of PyTorch's file.")
