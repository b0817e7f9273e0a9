"""A training loop in one call: `KerasModel`, metrics, and a `summary` of a model."""

from graphc.train import metrics
from graphc.train.history import History
from graphc.train.keras_model import KerasModel
from graphc.train.summary import ModelSummary, summary

__all__ = ["History", "KerasModel", "ModelSummary", "metrics", "summary"]
