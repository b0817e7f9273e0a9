"""Code in memory: shared while it is there, and gone when nobody holds it."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import numpy as np
import pytest

from graphc import ops, pipeline, program_cache
from graphc.backends.llvm import engine as engines
from graphc.backends.llvm.engine import Engine
from graphc.backends.llvm.objects import build_object
from graphc.backends.llvm.target import get_target
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, float32

MAPS = Path("/proc/self/maps")


def maps() -> int:
    """Memory maps of this process."""
    gc.collect()
    return MAPS.read_text().count("\n")


def returning(number: int, symbol: str) -> dict[str, bytes]:
    text = f"define i64 @{symbol}() {{ ret i64 {number} }}"
    return {symbol: build_object(text, get_target())}


def calling(symbol: str, other: str) -> dict[str, bytes]:
    text = f"declare i64 @{other}() define i64 @{symbol}() {{ %x = call i64 @{other}() ret i64 %x }}"
    return {symbol: build_object(text, get_target())}


def result(loaded: engines.Loaded, symbol: str) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64)(loaded.address(symbol))()


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(engines, "GENERATION", 4)
    return Engine(get_target())


def test_code_stays_while_it_is_held(engine):
    first = engine.load(returning(7, "seven"))
    for i in range(20):
        engine.load(returning(i, f"passing{i}"))
    gc.collect()
    assert result(first, "seven") == 7


def test_known_code_is_shared(engine):
    first = engine.load(returning(7, "seven"))
    both = engine.load({**returning(7, "seven"), **returning(8, "eight")})
    assert both.address("seven") == first.address("seven")
    assert (result(both, "seven"), result(both, "eight")) == (7, 8)


def test_callees_of_an_older_generation_are_loaded_again(engine):
    callee = returning(5, "callee")
    first = engine.load(callee)
    for i in range(8):
        engine.load(returning(i, f"between{i}"))
    second = engine.load({**callee, **calling("caller", "callee")})
    assert second.address("callee") != first.address("callee")
    del first
    gc.collect()
    assert result(second, "caller") == 5


def test_unknown_symbol(engine):
    with pytest.raises(KeyError):
        engine.load(returning(7, "seven")).address("eight")


@pytest.mark.skipif(not MAPS.exists(), reason="counts /proc/self/maps")
def test_dropped_code_is_unloaded(engine):
    before = maps()
    for i in range(200):
        engine.load(returning(i, f"dropped{i}"))
    assert maps() - before < 20
    assert len(engine._homes) <= 4


@pytest.mark.slow
@pytest.mark.skipif(not MAPS.exists(), reason="counts /proc/self/maps")
def test_many_programs_leave_nothing(monkeypatch):
    """As a long test run does: programs that nobody holds any more, all different."""
    monkeypatch.setattr(program_cache, "CAPACITY", 16)
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    x = ops.input_("x", TensorType((3,), float32))
    given = np.ones(3, np.float32)
    counts = []
    for i in range(1200):
        (out,) = pipeline.compile(Graph((x,), (ops.mul(x, ops.like(x, i + 0.125)),)))([given])
        assert out[0] == i + 0.125
        if i % 300 == 299:
            counts.append(maps())
    assert max(counts) - counts[0] < 100, counts


def test_engine_is_for_this_machine():
    foreign = "aarch64" if get_target().arch == "x86_64" else "x86-64-v3"
    with pytest.raises(RuntimeError, match="cannot run here"):
        Engine(get_target(foreign))
