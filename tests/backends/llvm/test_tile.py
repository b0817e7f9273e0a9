"""The register tile: numbers against NumPy, and the assembly against its design."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace

import numpy as np
import pytest

from graphc.backends.llvm.engine import get_engine
from graphc.backends.llvm.objects import assembly_text, build_object, llvm_text, parse
from graphc.backends.llvm.passes import FINISHED
from graphc.backends.llvm.target import Target, get_target, host_features
from graphc.backends.llvm.tile import UNROLL, TileSpec, declaration, emit_tile, parse_symbol

ALL = ("x86-64-v4", "x86-64-v3", "aarch64")
KINDS = {"f32": np.float32, "f64": np.float64}


def specs_of(target: Target, accumulate: bool = True) -> list[TileSpec]:
    return [
        TileSpec(rows, vectors * target.machine.lanes(size), dtype, accumulate)
        for rows, vectors in target.machine.tiles
        for dtype, size in (("f32", 4), ("f64", 8))
    ]


def runnable() -> list[str]:
    native = get_target()
    names = [
        n for n in ALL if get_target(n).arch == native.arch and get_target(n).required <= host_features()
    ]
    return ["native", *names]


def compiled(spec: TileSpec, target: Target):
    code = get_engine(target).load({spec.symbol: build_object(emit_tile(spec, target), target)})
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    kinds = (pointer, integer, integer, pointer, integer, pointer, integer, integer)
    kinds += (pointer,) if spec.walk else ()
    function = ctypes.CFUNCTYPE(None, *kinds)(code.address(spec.symbol))
    function.code = code
    return function


def run_tile(spec, target, depth, packed, pad):
    """Run one tile on random operands; returns (c as computed, c as NumPy computes it)."""
    kind = KINDS[spec.dtype]
    rng = np.random.default_rng([spec.rows, spec.lanes, depth])
    a = rng.standard_normal((spec.rows, depth + 1)).astype(kind)[:, :depth]
    b = rng.standard_normal((depth, spec.lanes + pad)).astype(kind)
    c = rng.standard_normal((spec.rows + 1, spec.lanes + pad)).astype(kind)
    memory = np.ascontiguousarray(a.T if packed else a)
    a_row, a_step = (1, spec.rows) if packed else (depth, 1)
    expected = c.copy()
    product = a.astype(np.float64) @ b[:, : spec.lanes].astype(np.float64)
    old = expected[: spec.rows, : spec.lanes] if spec.accumulate else 0.0
    expected[: spec.rows, : spec.lanes] = old + product
    tile = compiled(spec, target)
    where = [x.ctypes.data for x in (memory, b, c)]
    tile(where[0], a_row, a_step, where[1], b.shape[1], where[2], c.shape[1], depth)
    return c, expected


@pytest.mark.parametrize("name", runnable())
@pytest.mark.parametrize("accumulate", [False, True])
def test_every_tile_of_the_table_multiplies(name, accumulate):
    target = get_target(name)
    for spec in specs_of(target, accumulate):
        tolerance = 1e-5 if spec.dtype == "f32" else 1e-13
        for depth, packed, pad in ((0, True, 0), (1, False, 3), (7, True, 1), (64, False, 0), (65, True, 5)):
            got, want = run_tile(spec, target, depth, packed, pad)
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 10, err_msg=spec.symbol)


@pytest.mark.parametrize("rows,lanes", [(1, 16), (2, 8), (3, 4), (5, 32)])
def test_odd_sizes(rows, lanes):
    """Tiles outside the table, also narrower than a vector, for the edges of a matrix."""
    target = get_target("native")
    if (rows + 1) * lanes // target.machine.lanes(4) + 1 > target.registers:
        pytest.skip("more vectors than this machine has registers")
    got, want = run_tile(TileSpec(rows, lanes, "f32", True), target, 13, True, 2)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*ALL, "native"])
def test_hot_loop_is_all_multiply_adds_and_no_stack(name):
    target = get_target(name)
    for spec in specs_of(target):
        if name == "x86-64-v3" and spec.rows == 12:
            continue  # 12 accumulators and two operands of 16 registers: LLVM spills one of them
        if target.arch == "aarch64" and name == "native":
            continue  # the host's scheduling model is not one this table was tuned for
        assembly = assembly_text(emit_tile(spec, target), target)
        hot = hot_block(assembly)
        vectors = spec.lanes // target.machine.lanes(spec.itemsize)
        assert multiply_adds(hot) == UNROLL * spec.rows * vectors, spec.symbol
        framed = re.search(r"mov\w*\s+%rsp, %rbp", assembly)  # else %rbp is a register like others
        stack = r"\(%rsp|\(%rbp|\[sp" if framed else r"\(%rsp|\[sp"
        assert not re.search(stack, hot), f"{name} {spec.symbol} uses the stack:\n{hot}"
        assert "call" not in hot
        assert multiply_adds(assembly) == (UNROLL + 1) * spec.rows * vectors


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("how", ["now and then", "listed", "each"])
@pytest.mark.parametrize("lines", [1, 2, 4])
def test_fetching_tiles_ask_for_lines_and_stay_off_the_stack(name: str, lines: int, how: str) -> None:
    target = get_target(name)
    for plain in specs_of(target, False):
        if plain.dtype == "f64" or (name == "x86-64-v3" and plain.rows == 12):
            continue  # doubles are not fetched ahead; the other spills without fetching, too
        spec = replace(plain, fetch=lines, listed=how == "listed", each=how == "each")
        rounds = UNROLL if spec.each else 1
        hot = hot_block(assembly_text(emit_tile(spec, target), target))
        hot = hot[: hot.rindex(hot.split(":")[0])]  # up to the jump back
        assert len(re.findall(r"^\s+(?:prefetcht1|prfm)", hot, re.MULTILINE)) == lines * rounds, spec.symbol
        assert multiply_adds(hot) == UNROLL * spec.rows * spec.lanes // target.machine.lanes(4)
        stack = re.findall(r"^.*(?:\(%rsp|\[sp).*$", hot, re.MULTILINE)
        # strides of tall tiles
        assert len(stack) <= (4 if spec.each else 2), f"{name} {spec.symbol} uses the stack:\n{hot}"
        assert not any("mm" in line for line in stack)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("operand", ["a", "b"])
def test_walking_tiles_look_up_each_step_and_stay_off_the_stack(name: str, operand: str) -> None:
    target = get_target(name)
    for plain in specs_of(target, False):
        if plain.dtype == "f64" or (name == "x86-64-v3" and plain.rows == 12):
            continue  # the other spills without walking, too
        spec = replace(plain, walk=operand)
        hot = hot_block(assembly_text(emit_tile(spec, target), target))
        hot = hot[: hot.rindex(hot.split(":")[0])]  # up to the jump back
        assert multiply_adds(hot) == UNROLL * spec.rows * spec.lanes // target.machine.lanes(4)
        stack = re.findall(r"^.*(?:\(%rsp|\[sp).*$", hot, re.MULTILINE)
        assert len(stack) <= UNROLL, f"{name} {spec.symbol} uses the stack:\n{hot}"  # strides of tall tiles
        assert not any("mm" in line for line in stack)


@pytest.mark.parametrize("name", runnable())
@pytest.mark.parametrize("operand", ["a", "b"])
def test_walking_tiles_multiply_what_the_table_says(name: str, operand: str) -> None:
    target = get_target(name)
    rng = np.random.default_rng(3)
    for spec in (replace(s, walk=operand) for s in specs_of(target)):
        kind, depth = KINDS[spec.dtype], 11
        a = rng.standard_normal((spec.rows, 60)).astype(kind)
        b = rng.standard_normal((60, spec.lanes)).astype(kind)
        c = np.zeros((spec.rows, spec.lanes), kind)
        steps = rng.permutation(50)[:depth].astype(np.int64)
        table = np.diff(steps, append=0) * (1 if operand == "a" else spec.lanes)
        want = a[:, steps] @ b[:depth] if operand == "a" else a[:, :depth] @ b[steps]
        start = int(steps[0])
        a, b = (a[:, start:], b) if operand == "a" else (a, b[start:])
        where = [x.ctypes.data for x in (a, b, c, table)]
        compiled(spec, target)(where[0], 60, 1, where[1], spec.lanes, where[2], spec.lanes, depth, where[3])
        np.testing.assert_allclose(c, want, rtol=1e-4, atol=1e-4, err_msg=spec.symbol)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("fetch", [0, 2])
@pytest.mark.parametrize("below", ["rows", "line"])
def test_tiles_ask_for_the_rows_below_and_stay_off_the_stack(name: str, below: str, fetch: int) -> None:
    target = get_target(name)
    for plain in specs_of(target, False):
        if plain.lanes == target.machine.lanes(plain.itemsize):
            continue  # they have no time to ask
        if plain.dtype == "f64" and fetch:
            continue  # doubles are not fetched ahead
        spec = replace(plain, below=below, fetch=fetch)
        hot = hot_block(assembly_text(emit_tile(spec, target), target))
        hot = hot[: hot.rindex(hot.split(":")[0])]  # up to the jump back
        asked = spec.rows if below == "rows" else UNROLL
        assert len(re.findall(r"^\s+(?:prefetcht1|prfm)", hot, re.MULTILINE)) == asked + fetch, spec.symbol
        vectors = spec.lanes // target.machine.lanes(spec.itemsize)
        assert multiply_adds(hot) == UNROLL * spec.rows * vectors
        stack = re.findall(r"^.*(?:\(%rsp|\[sp).*$", hot, re.MULTILINE)
        assert len(stack) <= 4, f"{name} {spec.symbol} uses the stack:\n{hot}"  # strides of tall tiles
        assert not any("mm" in line for line in stack)


@pytest.mark.parametrize("name", runnable())
def test_asking_for_the_rows_below_changes_nothing(name: str) -> None:
    target = get_target(name)
    for spec in specs_of(target, False):
        tolerance = 1e-4 if spec.dtype == "f32" else 1e-12
        for below, packed in (("rows", False), ("line", True)):
            got, want = run_tile(replace(spec, below=below), target, 65, packed, 3)
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=spec.symbol)


def hot_block(assembly: str) -> str:
    return max(re.split(r"\n(?=\.L)", assembly), key=multiply_adds)


def multiply_adds(text: str) -> int:
    return len(re.findall(r"^\s+(?:vfmadd|fmla)", text, re.MULTILINE))


def test_wide_vectors_are_used():
    assembly = assembly_text(
        emit_tile(TileSpec(6, 64, "f32", True), get_target("x86-64-v4")), get_target("x86-64-v4")
    )
    assert "zmm" in assembly
    target = get_target("x86-64-v3")
    assembly = assembly_text(emit_tile(TileSpec(6, 16, "f32", True), target), target)
    assert "ymm" in assembly
    assert "zmm" not in assembly


def test_symbols_round_trip():
    spec = TileSpec(6, 64, "f32", False)
    assert spec.symbol == "graphc_tile_f32_6x64_set"
    assert parse_symbol(spec.symbol) == spec
    assert spec.symbol in declaration(spec.symbol)
    fetching = replace(spec, fetch=2)
    assert fetching.symbol == "graphc_tile_f32_6x64_set_fetch2"
    assert parse_symbol(fetching.symbol) == fetching
    assert declaration(fetching.symbol).count("i64") == declaration(spec.symbol).count("i64") + 1
    listed = replace(fetching, listed=True)
    assert listed.symbol == "graphc_tile_f32_6x64_set_list2"
    assert parse_symbol(listed.symbol) == listed
    assert declaration(listed.symbol).count("i64") == declaration(spec.symbol).count("i64")
    each = replace(fetching, each=True)
    assert each.symbol == "graphc_tile_f32_6x64_set_each2"
    assert parse_symbol(each.symbol) == each
    assert declaration(each.symbol) == declaration(fetching.symbol).replace("fetch", "each")
    walking = replace(fetching, walk="b")
    assert walking.symbol == "graphc_tile_f32_6x64_set_walkb_fetch2"
    assert parse_symbol(walking.symbol) == walking
    assert declaration(walking.symbol).count("ptr") == declaration(fetching.symbol).count("ptr") + 1
    asking = replace(fetching, below="rows")
    assert asking.symbol == "graphc_tile_f32_6x64_set_belowrows_fetch2"
    assert parse_symbol(asking.symbol) == asking
    assert declaration(asking.symbol).replace("_belowrows", "") == declaration(fetching.symbol)
    with pytest.raises(ValueError, match="not a tile symbol"):
        parse_symbol("graphc_kernel_6x64")


@pytest.mark.parametrize(
    "rows,lanes,message", [(6, 65, "vectors of 16 lanes"), (16, 32, "vector registers"), (0, 16, "vectors")]
)
def test_impossible_tiles(rows, lanes, message):
    with pytest.raises(ValueError, match=message):
        emit_tile(TileSpec(rows, lanes, "f32", True), get_target("x86-64-v4"))


@pytest.mark.parametrize("name", ALL)
def test_tiles_are_compiled_as_they_are_written(name: str) -> None:
    """LLVM's passes find nothing to do in a tile, and are not asked."""
    target = get_target(name)
    text = emit_tile(specs_of(target)[0], target)
    assert llvm_text(text, target) == str(parse(text, target))
    assert llvm_text(text.replace(FINISHED, ""), target) != str(parse(text.replace(FINISHED, ""), target))
