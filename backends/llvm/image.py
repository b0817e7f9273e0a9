"""A compiled program as data: what a warm start needs, in one file without pickle.

Layout: magic, 8 bytes of header length, JSON header, then the blobs (object code, constants), each at a
multiple of 64 bytes. Bounds are checked; integrity of the whole is the store's business (it keeps a hash).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from graphc.backends.llvm.rows import Address, Spot
from graphc.backends.llvm.table import TableCall, estimate
from graphc.ir.types import BY_NAME, TensorType
from graphc.program import Loop, Place, Plan, Turn

_MAGIC = b"graphc-program-3\n"
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
    loops: tuple[Loop, ...]
    objects: dict[str, bytes]


def make_image(plan: Plan, target: str, symbols: Iterable[str], objects: dict[str, bytes]) -> Image:
    """The image of a plan whose kernels are compiled."""
    bases = {
        "input": 0,
        "output": len(plan.inputs),
        "constant": len(plan.inputs) + len(plan.outputs),
        "arena": len(plan.inputs) + len(plan.outputs) + len(plan.constants),
    }

    def spot(place: Place) -> Spot:
        if isinstance(place, Turn):
            first = None if place.first is None else spot(place.first)
            return Turn(place.loop, first, tuple([spot(p) for p in place.rest]))
        base = bases[place.space] + (0 if place.space == "arena" else place.index)
        return Address(base, place.offset, place.steps)

    calls = []
    for call in plan.calls:
        kernel = plan.kernels[call.kernel]
        args = tuple([spot(place) for place in call.args])
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
        loops=plan.loops,
        objects=objects,
    )


def dump_image(image: Image) -> bytes:
    """The image as bytes."""
    blobs: list[bytes] = []
    header = {
        "target": image.target,
        "symbols": image.symbols,
        "names": image.names,
        "calls": [
            (c.kernel, c.tasks, [_spot_out(a) for a in c.args], c.barrier, c.cost) for c in image.calls
        ],
        "inputs": [_type_out(t) for t in image.inputs],
        "outputs": [_type_out(t) for t in image.outputs],
        "donated": sorted(image.donated.items()),
        "arena_bytes": image.arena_bytes,
        "arena_lower_bound": image.arena_lower_bound,
        "scratch_bytes": image.scratch_bytes,
        "gate": image.gate,
        "checks": image.checks,
        "loops": [astuple(loop) for loop in image.loops],
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
        TableCall(kernel, tasks, tuple([_spot_in(arg) for arg in args]), barrier, cost)
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
        loops=tuple([Loop(*loop) for loop in header["loops"]]),
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


def _spot_out(spot: Spot) -> list:
    """[base, offset], [base, offset, steps], or of a Turn [[loop, first], rest]."""
    if isinstance(spot, Turn):
        first = None if spot.first is None else _spot_out(spot.first)
        return [[spot.loop, first], [_spot_out(place) for place in spot.rest]]
    return [spot.base, spot.offset, spot.steps] if spot.steps else [spot.base, spot.offset]


def _spot_in(data: list) -> Spot:
    head: Any = data[0]
    if isinstance(head, list):
        loop, first = head
        return Turn(loop, None if first is None else _spot_in(first), tuple([_spot_in(d) for d in data[1]]))
    steps = tuple([(loop, step) for loop, step in data[2]]) if len(data) > 2 else ()
    return Address(head, data[1], steps)
