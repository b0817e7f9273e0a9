"""Names of types for annotations, as in `torch.types`."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import TypeAlias

from graphc.frontend.functions.convert import Device as _Place
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

_int: TypeAlias = builtins.int
_float: TypeAlias = builtins.float
_bool: TypeAlias = builtins.bool
_dtype: TypeAlias = DType
_device: TypeAlias = _Place
_size: TypeAlias = Sequence[_int]

Number: TypeAlias = _int | _float | _bool
Device: TypeAlias = _Place | str | _int | None
_TensorOrTensors: TypeAlias = Tensor | Sequence[Tensor]
