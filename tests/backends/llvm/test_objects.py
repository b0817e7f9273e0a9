"""Object code: compiled once, found again without emission, and moved between processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from plans import SHAPE, affine_kernel, chain_numpy, chain_plan, matmul_plan

from graphc import cache
from graphc.backends.llvm import Backend, kernels, objects, parallel
from graphc.backends.llvm.image import dump_image, parse_image
from graphc.backends.llvm.kernels import compile_kernels, kernel_source, tiles_of
from graphc.backends.llvm.target import get_target
from graphc.cache import CacheWarning


@pytest.fixture
def cold(monkeypatch, tmp_path):
    """No object is known; the disk cache is empty."""
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "_memory", {})
    return tmp_path / "cache"


@pytest.fixture
def emissions(monkeypatch):
    """Names of the kernels that were really emitted."""
    emitted = []
    real = kernels.emit_kernel

    def counting(kernel, target):
        emitted.append(kernel.name)
        return real(kernel, target)

    monkeypatch.setattr(kernels, "emit_kernel", counting)
    return emitted


def forget(monkeypatch):
    monkeypatch.setattr(objects, "_memory", {})


def test_equal_kernels_share_one_object(cold, emissions):
    target = get_target()
    batch = [affine_kernel(2.0, 1.0), affine_kernel(2.0, 1.0, name="other"), affine_kernel(2.0, 3.0)]
    symbols, code = compile_kernels(batch, target)
    assert symbols[0] == symbols[1] != symbols[2]
    assert len(emissions) == len(code) == 2


def test_estimates_are_not_part_of_the_key():
    target = get_target()
    assert (
        kernel_source(affine_kernel(1, 2, cost=5.0), target).key
        == kernel_source(affine_kernel(1, 2), target).key
    )


def test_key_depends_on_all_that_matters(monkeypatch):
    kernel = affine_kernel(2.0, 1.0)
    keys = {kernel_source(kernel, get_target(name)).key for name in ("x86-64-v3", "x86-64-v4", "aarch64")}
    assert len(keys) == 3
    here = kernel_source(kernel, get_target()).key
    monkeypatch.setattr(objects, "emitter_digest", lambda: "another emitter")
    assert kernel_source(kernel, get_target()).key != here


def test_disk_hit_emits_nothing(cold, emissions, monkeypatch):
    batch = [affine_kernel(2.0, 1.0), affine_kernel(3.0, 1.0)]
    first = compile_kernels(batch, get_target())
    assert len(emissions) == 2
    forget(monkeypatch)
    assert compile_kernels(batch, get_target()) == first
    assert len(emissions) == 2


def test_damaged_object_is_compiled_again(cold, emissions, monkeypatch):
    kernel = affine_kernel(2.0, 1.0)
    first = compile_kernels([kernel], get_target())
    (path,) = cold.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    forget(monkeypatch)
    with pytest.warns(CacheWarning, match="damaged"):
        assert compile_kernels([kernel], get_target()) == first
    assert len(emissions) == 2


def test_cache_off_still_compiles(cold, monkeypatch):
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert compile_kernels([affine_kernel(2.0, 5.0)], get_target())[1]
    assert not cold.exists()


def test_tiles_are_found_and_bundled():
    target = get_target()
    rows, vectors = target.machine.tiles[0]
    lanes = vectors * target.machine.lanes(4)
    plan = matmul_plan(rows, lanes, 5, 2, np.zeros((5, lanes), np.float32))
    (spec,) = tiles_of(plan.kernels[0])
    assert (spec.rows, spec.lanes, spec.dtype, spec.accumulate) == (rows, lanes, "f32", False)
    executable = Backend().compile(None, plan)
    assert spec.symbol in executable.image.objects


def test_image_round_trip():
    backend = Backend()
    lanes = backend.machine.lanes(4)
    plan = matmul_plan(2, lanes, 3, 4, np.arange(3.0 * lanes, dtype=np.float32).reshape(3, lanes))
    image = backend.compile(None, replace(plan, donated={0: 0}, gate=1, checks=("bad\nvalue é",))).image
    data = dump_image(image)
    again = parse_image(data)
    assert replace(again, constants=()) == replace(image, constants=())
    np.testing.assert_array_equal(again.constants[0], image.constants[0])
    assert dump_image(again) == data


@pytest.mark.parametrize("cut", [0, 5, 20, 300, -1])
def test_cut_image_is_refused(cut):
    data = dump_image(Backend().compile(None, chain_plan()).image)
    with pytest.raises(ValueError, match="not a compiled graphc program"):
        parse_image(data[:cut])


def test_image_of_another_target_is_refused():
    backend = Backend()
    image = replace(backend.compile(None, chain_plan()).image, target="riscv")
    with pytest.raises(ValueError, match="compiled for 'riscv'"):
        backend.load(dump_image(image))


_OTHER = """
import sys; sys.path.insert(0, {folder!r})
import numpy as np
from plans import SHAPE
from graphc.backends.llvm import Backend
program = Backend().load(open({path!r}, "rb").read())
x = np.load({array!r}); out = np.zeros(SHAPE, np.float32); total = np.zeros(1, np.float32)
assert program([x], [out, total]) == 0
np.save({result!r}, out)
"""


def test_serialized_program_runs_in_another_process(tmp_path):
    x = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    backend = Backend()
    executable = backend.compile(None, chain_plan(7))
    files = {name: str(tmp_path / name) for name in ("path", "array.npy", "result.npy")}
    (tmp_path / "path").write_bytes(backend.serialize(executable))
    np.save(files["array.npy"], x)
    script = _OTHER.format(
        folder=os.path.dirname(__file__),
        path=files["path"],
        array=files["array.npy"],
        result=files["result.npy"],
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    out, total = np.zeros(SHAPE, np.float32), np.zeros(1, np.float32)
    executable([x], [out, total])
    assert np.load(files["result.npy"]).tobytes() == out.tobytes()
    np.testing.assert_allclose(out, chain_numpy(x, 7), rtol=1e-6)


def test_dump_texts():
    kernel = affine_kernel(2.0, 1.0)
    for name in ("native", "x86-64-v3", "aarch64"):
        backend = Backend(name)
        raw, clean = backend.llvm_ir(kernel), backend.llvm_ir(kernel, optimised=True)
        assert "define" in raw
        assert "define" in clean
        assert raw != clean
        assert "ret" in backend.assembly(kernel)
    assert "ymm" in Backend("x86-64-v3").assembly(kernel)


def test_cross_target_is_not_run():
    foreign = "aarch64" if get_target().arch == "x86_64" else "x86-64-v3"
    with pytest.raises(RuntimeError, match="cannot run here"):
        Backend(foreign).compile(None, chain_plan())


def test_store_is_the_environments(cold):
    compile_kernels([affine_kernel(2.0, 1.0)], get_target())
    assert cache.get_store().info().entries == 1


def modules(count: int):
    target = get_target()
    return [kernel_source(affine_kernel(float(n), 1.0), target).emit for n in range(count)]


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(parallel, "get_num_threads", lambda: 2)


def test_helpers_give_the_same_code(two_threads):
    """However the modules are shared out, and also if this process compiles none itself."""
    target = get_target()
    emit = modules(2 * parallel.FEWEST)
    here = [objects.build_object(text(), target) for text in emit]
    mine = []

    def slow_build(text, target):
        time.sleep(0.05)
        mine.append(text)
        return objects.build_object(text, target)

    assert parallel.build_all(emit, target, slow_build) == here
    assert len(mine) < len(emit)


@pytest.mark.parametrize("program", ["/bin/false", "/nonexistent/python", "/bin/cat"])
def test_useless_helpers_do_no_harm(two_threads, monkeypatch, program):
    monkeypatch.setattr(sys, "executable", program)
    emit = modules(2 * parallel.FEWEST)
    codes = parallel.build_all(emit, get_target(), objects.build_object)
    assert len(codes) == len(emit)
    assert all(codes)


def test_error_in_a_helper_is_raised_here(two_threads):
    emit = modules(2 * parallel.FEWEST)
    emit[5] = lambda: "this is not LLVM IR"
    with pytest.raises(RuntimeError, match="expected top-level entity"):
        parallel.build_all(emit, get_target(), objects.build_object)


def test_error_while_emitting_is_raised(two_threads):
    def broken():
        raise ValueError("no such kernel")

    with pytest.raises(ValueError, match="no such kernel"):
        parallel.build_all([*modules(2 * parallel.FEWEST), broken], get_target(), objects.build_object)


def test_kernels_compiled_ahead_are_found(cold, two_threads, emissions):
    target, count = get_target(), 2 * parallel.FEWEST
    batch = [affine_kernel(float(n), 0.5) for n in range(count)]
    with kernels.ahead(target, count) as submit:
        for kernel in (*batch, *batch):
            submit(kernel)
    assert len(emissions) == count
    _, codes = compile_kernels([*batch, affine_kernel(-1.0, 0.5)], target)
    assert len(emissions) == count + 1
    source = kernel_source(batch[3], target)
    assert codes[source.symbol] == objects.build_object(source.emit(), target)


def test_helpers_start_only_for_enough_modules_that_no_cache_knows(cold, two_threads, monkeypatch):
    started = []
    monkeypatch.setattr(parallel, "_drive", lambda *job: started.append(job))
    target, known = get_target(), [affine_kernel(float(n), 0.25) for n in range(parallel.FEWEST)]
    compile_kernels(known[2:], target)  # (as many as start a helper when all are cold)
    objects.compile_runtime(target)
    started.clear()
    for count, helpers in ((2, 0), (objects.COLD, 1)):
        new = [affine_kernel(float(n), float(count)) for n in range(count)]
        with kernels.ahead(target, 2 * parallel.FEWEST) as submit:
            for kernel in (*known[2:], *new):
                submit(kernel)
        assert len(started) == helpers, count


def test_helpers_start_at_once_where_nothing_was_ever_compiled(cold, two_threads, monkeypatch):
    started = []
    monkeypatch.setattr(parallel, "_drive", lambda *job: started.append(job))
    for helpers in (1, 0):  # the second time the walker is known
        started.clear()
        with kernels.ahead(get_target(), 2 * parallel.FEWEST):
            assert len(started) == helpers


def test_nothing_goes_ahead_without_helpers(cold, emissions, monkeypatch):
    monkeypatch.setattr(parallel, "get_num_threads", lambda: 1)
    with kernels.ahead(get_target(), 1000) as submit:
        submit(affine_kernel(7.0, 0.5))
    assert emissions == []


def test_an_error_while_lowering_ends_what_runs_ahead(cold, two_threads):
    def lowering():
        with kernels.ahead(get_target(), 1000) as submit:
            submit(affine_kernel(7.0, 0.5))
            raise ValueError("no such loop")

    with pytest.raises(ValueError, match="no such loop"):
        lowering()
    assert compile_kernels([affine_kernel(7.0, 0.5)], get_target())[1]
