"""Checkpoints: `graphc.save` and `graphc.load`, as safetensors with JSON metadata. Never pickle.

A file is a plain safetensors file that other tools can read. Its metadata hold, as JSON, how the
tensors stand in the object that was saved, a checksum of each, and one of their own. Files are written
beside their target and renamed, so that a failed save leaves the old file as it was.
"""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor, from_array
from graphc.ir.types import BY_NAME, DType

_VERSION = 1
_KEY = "graphc"
_SUM = "graphc.crc32"  # the metadata's own checksum


class CheckpointError(ValueError):
    """A file that cannot be loaded; the text names it and says what is wrong."""


def _safetensors() -> Any:
    """The one place where safetensors is imported: when the first file is read or written."""
    import safetensors
    import safetensors.numpy

    return safetensors


# ------------------------------------------------------------------ packing


class _Packer:
    """Turns an object into JSON and a table of named arrays."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._names: dict[int, str] = {}
        self._held: list[Any] = []  # keeps ids from being reused while packing

    def pack(self, value: Any, path: str) -> Any:
        """JSON for `value`; plain JSON values stand for themselves, all else is {"type": ...}."""
        if value is None or isinstance(value, str | bool):
            return value
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else {"type": "float", "value": repr(value)}
        if isinstance(value, Tensor):
            return self._tensor("tensor", value, value.detach().numpy(), path)  # type: ignore[attr-defined]
        if isinstance(value, np.ndarray):
            return self._tensor("array", value, value, path)
        if isinstance(value, DType):
            return {"type": "dtype", "value": value.name}
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, list | tuple | set | frozenset):
            return self._sequence(value, path)
        raise TypeError(
            f"graphc.save: cannot save {type(value).__name__} at {path or 'the top'}. Checkpoints "
            "hold tensors, "
            "numbers, strings, None, dicts, lists and tuples; of a Module or an Optimizer save state_dict()"
        )

    def _tensor(self, kind: str, value: Any, array: np.ndarray, path: str) -> dict[str, str]:
        if array.dtype.kind not in "fiub":
            raise TypeError(f"graphc.save: cannot save an array of dtype {array.dtype} at {path}")
        name = self._names.get(id(value))
        if name is None:
            name = path or "value"
            while name in self.arrays or name == "__metadata__":
                name += "_"
            self._names[id(value)] = name
            self._held.append(value)
            self.arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
        return {"type": kind, "name": name}

    def _mapping(self, value: Mapping, path: str) -> dict[str, Any]:
        kind = "ordered_dict" if isinstance(value, OrderedDict) else "dict"
        items = []
        for key, item in value.items():
            if not isinstance(key, str | int | float | bool | tuple) and key is not None:
                raise TypeError(f"graphc.save: cannot save a dict key of type {type(key).__name__} at {path}")
            below = f"{path}.{key}" if path else str(key)
            items.append([self.pack(key, below), self.pack(item, below)])
        packed = {"type": kind, "items": items}
        metadata = getattr(value, "_metadata", None)
        if metadata is not None:
            packed["metadata"] = self.pack(metadata, f"{path}._metadata")
        return packed

    def _sequence(self, value: Any, path: str) -> Any:
        items = [self.pack(v, f"{path}.{i}" if path else str(i)) for i, v in enumerate(value)]
        if type(value) is list:
            return items
        kinds = ((Size, "size"), (tuple, "tuple"), (frozenset, "set"), (set, "set"), (list, "list"))
        return {"type": next(name for cls, name in kinds if isinstance(value, cls)), "items": items}


def _unpack(value: Any, tensors: dict[str, np.ndarray], made: dict[tuple[str, str], Any]) -> Any:
    """The object that `_Packer.pack` was given. KeyError, TypeError, ValueError for damaged JSON."""
    if isinstance(value, list):
        return [_unpack(v, tensors, made) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value["type"]
    if kind in ("tensor", "array"):
        key = (kind, value["name"])
        if key not in made:
            array = tensors[value["name"]]
            made[key] = from_array(array) if kind == "tensor" else array
        return made[key]
    if kind == "float":
        return float(value["value"])
    if kind == "dtype":
        return BY_NAME[value["value"]]
    if kind in ("dict", "ordered_dict"):
        pairs = [(_unpack(k, tensors, made), _unpack(v, tensors, made)) for k, v in value["items"]]
        if kind == "dict":
            return dict(pairs)
        ordered = OrderedDict(pairs)
        if "metadata" in value:
            ordered._metadata = _unpack(value["metadata"], tensors, made)  # type: ignore[attr-defined]
        return ordered
    classes = {"tuple": tuple, "size": Size, "set": set, "list": list}
    return classes[kind](_unpack(value["items"], tensors, made))


# ------------------------------------------------------------------- saving


def save(obj: Any, f: str | os.PathLike | IO[bytes]) -> None:
    """Write an object to a path or a binary file: tensors, numbers, strings, None, in dicts, lists, tuples.

    So are the state dicts of modules, optimizers and schedules. TypeError, naming the place, for
    anything else. A path is written atomically: on any error the old file stays.
    """
    packer = _Packer()
    structure = packer.pack(obj, "")
    sums = {name: zlib.crc32(_bytes(array)) for name, array in packer.arrays.items()}
    text = json.dumps({"version": _VERSION, "structure": structure, "crc32": sums}, allow_nan=False)
    library = _safetensors()
    metadata = {_KEY: text, _SUM: str(zlib.crc32(text.encode()))}
    if not isinstance(f, str | os.PathLike):
        f.write(library.numpy.save(packer.arrays, metadata))
        return
    target = Path(f)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "graphc.save: there is no such folder", str(target.parent))
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    try:
        library.numpy.save_file(packer.arrays, temporary, metadata)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _bytes(array: np.ndarray) -> Any:
    return array.reshape(-1).view(np.uint8) if array.size else b""


def _mode(target: Path) -> int:
    """The permissions of the file to be replaced, or what the umask gives to a new one."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


# ------------------------------------------------------------------ loading


def load(
    f: str | os.PathLike | IO[bytes],
    map_location: Any = None,
    *,
    weights_only: bool = True,
    mmap: bool | None = None,
) -> Any:
    """Read what `save` wrote; any other safetensors file gives a dict name -> tensor.

    `map_location`, `weights_only` and `mmap` are accepted for PyTorch programs: everything is on the CPU,
    and no file can run code. CheckpointError (a ValueError) naming the file if it is damaged or is
    something else; FileNotFoundError if there is none.
    """
    name = str(f) if isinstance(f, str | os.PathLike) else getattr(f, "name", "the given file object")
    data = Path(f).read_bytes() if isinstance(f, str | os.PathLike) else f.read()
    library = _safetensors()
    _check_kind(name, data)
    try:
        tensors = {k: np.array(v) for k, v in library.numpy.load(data).items()}
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except (library.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"graphc.load: {name} is damaged or is not a safetensors file: {error}"
        ) from error
    if not {_KEY, _SUM} & metadata.keys():
        return {k: from_array(v) for k, v in tensors.items()}
    try:
        held = json.loads(metadata[_KEY])
        version, structure, sums = held["version"], held["structure"], held["crc32"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"graphc.load: the metadata of {name} are damaged: {error}") from error
    if version != _VERSION:
        raise CheckpointError(
            f"graphc.load: {name} has format version {version}, and this graphc reads version {_VERSION}"
        )
    if metadata.get(_SUM) != str(zlib.crc32(metadata[_KEY].encode())):
        raise CheckpointError(f"graphc.load: {name} is damaged: the checksum of its metadata is wrong")
    for key, array in tensors.items():
        if zlib.crc32(_bytes(array)) != sums.get(key):
            raise CheckpointError(f"graphc.load: {name} is damaged: the checksum of tensor {key!r} is wrong")
    try:
        return _unpack(structure, tensors, {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"graphc.load: the structure in {name} is damaged: {error!r}") from error


def _check_kind(name: str, data: bytes) -> None:
    """Say what a file is that is obviously something else."""
    if data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05"):
        raise CheckpointError(
            f"graphc.load: {name} looks like a pickle written by torch.save, which graphc never "
            "reads. Convert it "
            "in PyTorch: safetensors.torch.save_file(state_dict, path)"
        )
    if len(data) < 8:
        raise CheckpointError(f"graphc.load: {name} is damaged: {len(data)} bytes are too few for a header")
