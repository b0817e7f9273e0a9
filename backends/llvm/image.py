"""A compiled program as data: what a warm start needs, in one file without pickle.

Layout: magic, 8 bytes of header length, JSON header, then the blobs (object code, constants), each at a
multiple of 64 bytes. Bounds are checked; integrity of the whole is the store's business (it keeps a hash).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from graphc.backends.llvm.table import TableCall, estimate
from graphc.ir.types import BY_NAME, TensorType
from graphc.program import Plan, Slot

_MAGIC = b"graphc-program-2\n"
_ALIGN = 64


@dataclass(frozen=True)
class Image:
    """Everything an executable is made from; see `Plan` for the fields they share.

    symbols  entry points of the kernels; `objects` holds their code and their tiles', by symbol
    names    the kernels' names, for people
    target   key of the target the code is for
    """

    target: str
    symbols: tuple[str, ...]
    names: tuple[str, ...]
    calls: tuple[TableCall, ...]
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    constants: tuple[np.ndarray, ...]
    donated: dict[int, int]
    arena_bytes: int
    arena_lower_bound: int
    scratch_bytes: int
    gate: int
    checks: tuple[str, ...]
    objects: dict[str, bytes]


def make_image(plan: Plan, target: str, symbols: Iterable[str], objects: dict[str, bytes]) -> Image:
    """The image of a plan whose kernels are compiled."""
    bases = {
        "input": 0,
        "output": len(plan.inputs),
        "constant": len(plan.inputs) + len(plan.outputs),
        "arena": len(plan.inputs) + len(plan.outputs) + len(plan.constants),
    }

    def place(slot: Slot) -> tuple[int, int]:
        return bases[slot.space] + (0 if slot.space == "arena" else slot.index), slot.offset

    calls = []
    for call in plan.calls:
        kernel = plan.kernels[call.kernel]
        args = tuple(place(slot) for slot in call.args)
        cost = estimate(kernel.flops, kernel.bytes)
        calls.append(TableCall(call.kernel, kernel.tasks, args, call.barrier, cost))
    return Image(
        target=target,
        symbols=tuple(symbols),
        names=tuple(kernel.name for kernel in plan.kernels),
        calls=tuple(calls),
        inputs=plan.inputs,
        outputs=plan.outputs,
        constants=tuple(np.ascontiguousarray(c) for c in plan.constants),
        donated=dict(plan.donated),
        arena_bytes=plan.arena_bytes,
        arena_lower_bound=plan.arena_lower_bound,
        scratch_bytes=plan.scratch_bytes,
        gate=plan.gate,
        checks=plan.checks,
        objects=objects,
    )


def dump_image(image: Image) -> bytes:
    """The image as bytes."""
    blobs: list[bytes] = []
    header = {
        "target": image.target,
        "symbols": image.symbols,
        "names": image.names,
        "calls": [(c.kernel, c.tasks, c.args, c.barrier, c.cost) for c in image.calls],
        "inputs": [_type_out(t) for t in image.inputs],
        "outputs": [_type_out(t) for t in image.outputs],
        "donated": sorted(image.donated.items()),
        "arena_bytes": image.arena_bytes,
        "arena_lower_bound": image.arena_lower_bound,
        "scratch_bytes": image.scratch_bytes,
        "gate": image.gate,
        "checks": image.checks,
        "objects": list(image.objects),
        "constants": [(c.dtype.str, c.shape) for c in image.constants],
    }
    blobs += image.objects.values()
    blobs += [c.tobytes() for c in image.constants]
    header["sizes"] = [len(blob) for blob in blobs]
    text = json.dumps(header, separators=(",", ":")).encode()
    parts = [_MAGIC, len(text).to_bytes(8, "little"), text]
    at = sum(map(len, parts))
    for blob in blobs:
        gap = -at % _ALIGN
        parts += (bytes(gap), blob)
        at += gap + len(blob)
    return b"".join(parts)


def parse_image(data: bytes) -> Image:
    """The image in `data`; ValueError if it is not one."""
    try:
        return _parse(data)
    except (KeyError, TypeError, IndexError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a compiled graphc program: {error!r}") from error


def _parse(data: bytes) -> Image:
    if not data.startswith(_MAGIC):
        raise ValueError("not a compiled graphc program: wrong magic")
    start = len(_MAGIC) + 8
    length = int.from_bytes(data[start - 8 : start], "little")
    header = json.loads(data[start : start + length])
    blobs = _blobs(data, start + length, header["sizes"])
    names = header["objects"]
    arrays = zip(header["constants"], blobs[len(names) :], strict=True)
    calls = (
        TableCall(kernel, tasks, tuple((base, offset) for base, offset in args), barrier, cost)
        for kernel, tasks, args, barrier, cost in header["calls"]
    )
    return Image(
        target=header["target"],
        symbols=tuple(header["symbols"]),
        names=tuple(header["names"]),
        calls=tuple(calls),
        inputs=tuple(map(_type_in, header["inputs"])),
        outputs=tuple(map(_type_in, header["outputs"])),
        constants=tuple(np.frombuffer(blob, np.dtype(kind)).reshape(shape) for (kind, shape), blob in arrays),
        donated=dict(header["donated"]),
        arena_bytes=header["arena_bytes"],
        arena_lower_bound=header["arena_lower_bound"],
        scratch_bytes=header["scratch_bytes"],
        gate=header["gate"],
        checks=tuple(header["checks"]),
        objects=dict(zip(names, blobs, strict=False)),
    )


def _blobs(data: bytes, at: int, sizes: list[int]) -> list[bytes]:
    blobs = []
    for size in sizes:
        at += -at % _ALIGN
        if size < 0 or at + size > len(data):
            raise ValueError("not a compiled graphc program: truncated")
        blobs.append(data[at : at + size])
        at += size
    return blobs


def _type_out(kind: TensorType) -> list:
    return [kind.dtype.name, kind.shape]


def _type_in(pair: list) -> TensorType:
    name, shape = pair
    return TensorType(tuple(shape), BY_NAME[name])
