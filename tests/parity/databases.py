"""PyTorch's own test databases, imported once and quietly; the tests skip themselves without them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest (the `test` extra has it)")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
    from torch.testing._internal.common_optimizers import optim_db

OPS: dict[str, Any] = {op.formatted_name: op for op in op_db}
MODULES: dict[str, Any] = {info.name: info for info in module_db}
OPTIMIZERS: dict[str, Any] = {info.optim_cls.__name__: info for info in optim_db}

__all__ = ["MODULES", "OPS", "OPTIMIZERS", "ModuleErrorEnum", "torch"]
