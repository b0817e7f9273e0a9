"""The same program gives the same bits: for any number of threads, after a cache hit, lazily or compiled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.backends.llvm.target import get_target
from graphc.nn import functional as F
from graphc.threads import get_num_threads, set_num_threads

from .native.workloads import WORKLOADS

ROOT = Path(__file__).parent.parent


def run(cache: Path, **settings: Any) -> dict[str, Any]:
    """What the workloads print in a process of their own."""
    env = {**os.environ, "GRAPHC_CACHE": str(cache), **{k: str(v) for k, v in settings.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "tests.native.workloads"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(cache: Path) -> dict[str, Any]:
    """One thread, nothing in the cache."""
    done = run(cache, GRAPHC_THREADS=1)
    assert done["lowered"] >= len(WORKLOADS)
    return done


@pytest.mark.parametrize("count", [2, 3])
def test_threads_and_cache(first: dict[str, Any], cache: Path, count: int) -> None:
    """Another process, more threads, all code from the cache."""
    again = run(cache, GRAPHC_THREADS=count)
    for name in WORKLOADS:
        assert again["results"][name] == first["results"][name], name
    if again["compiler"] != first["compiler"]:
        pytest.skip("the compiler's source files changed while this test ran")
    assert again["lowered"] == 0


def test_recompiled(first: dict[str, Any], tmp_path: Path) -> None:
    """Code compiled by several threads, and used at once, does what code compiled by one does."""
    again = run(tmp_path, GRAPHC_THREADS=3)
    assert again["lowered"] == first["lowered"]
    assert again["results"] == first["results"]


def test_lazy_is_compiled(first: dict[str, Any]) -> None:
    """Losses, parameters and optimizer state; the dropout masks are the same too."""
    for name in ("digits", "sequences"):
        assert first["results"][name] == first["results"][f"{name}, lazily"]


def test_another_target(first: dict[str, Any], cache: Path) -> None:
    """AVX2 code on whatever machine this is: other sums, the same numbers."""
    native = get_target()
    if native.arch != "x86_64" or "+avx2" not in native.features.split(","):
        pytest.skip("this CPU has no AVX2")
    other = run(cache, GRAPHC_TARGET="x86-64-v3", GRAPHC_THREADS=2)
    assert other["lowered"] == first["lowered"]
    for name in WORKLOADS:
        np.testing.assert_allclose(
            other["results"][name]["numbers"], first["results"][name]["numbers"], rtol=1e-3, err_msg=name
        )


@pytest.fixture
def threads():
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


def test_threads_within_a_process(threads: Any) -> None:
    """The number may change between calls of one program; repeated, since a race shows only sometimes."""
    rng = np.random.default_rng(0)
    x, w, k = (
        graphc.from_numpy(rng.standard_normal(s).astype(np.float32))
        for s in ((8, 16, 31, 31), (961, 300), (24, 16, 3, 3))
    )

    @graphc.compile
    def program(x: graphc.Tensor, w: graphc.Tensor, k: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        y = F.conv2d(x, k, padding=1)
        z = y.flatten(2) @ w
        return y, z, z.softmax(-1), y.sum((0, 2, 3)), (z * z).mean(), F.layer_norm(z, (300,)), z.cumsum(0)

    expected = None
    for count in (1, 2, 3, 1, 3, 2) * 5:
        threads(count)
        found = [t.numpy() for t in program(x, w, k)]
        expected = expected or found
        for i, (a, e) in enumerate(zip(found, expected, strict=True)):
            assert a.tobytes() == e.tobytes(), f"output {i} with {count} threads"


def test_dropout_masks() -> None:
    """Two layers, called three times: each draw differs, and lazy and compiled draws agree."""

    def masks(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor, graphc.Tensor]:
        return F.dropout(x, 0.5), F.dropout(x, 0.2), graphc.rand(7)

    x = graphc.ones(33, 17)
    drawn = []
    for function in (masks, graphc.compile(masks)):
        graphc.manual_seed(3)
        drawn.append([t.numpy().copy() for _ in range(3) for t in function(x)])
    for lazily, compiled in zip(*drawn, strict=True):
        np.testing.assert_array_equal(lazily, compiled)
    assert len({m.tobytes() for m in drawn[0]}) == 9
