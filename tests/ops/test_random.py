"""Random bits: the published vectors, independence of shape, streams, and the distributions."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, float32, float64, int64
from graphc.loop.lower import lower_group
from graphc.loop.printer import print_kernel
from graphc.ops import input_, normal, random_bits, uniform
from graphc.ops.random import _ARRAYS, philox
from graphc.passes.fuse import partition
from tests.loop.running import WIDE
from tests.ops.numeric import evaluate

KEY = input_("key", TensorType((2,), int64))


def draw(node: Node, seed: int = 5, offset: int = 0) -> np.ndarray:
    return evaluate(Graph((KEY,), (node,)), [np.array([seed, offset])])[0]


@pytest.mark.parametrize(
    "counter,key,expected",
    [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter: str, key: str, expected: str) -> None:
    """The vectors that come with the authors' Random123 library."""
    words = [np.array([int(w, 16)], np.uint32) for w in (counter + " " + key).split()]
    result = philox(words[:4], words[4:], _ARRAYS)
    assert [f"{int(w[0]):08x}" for w in result] == expected.split()


def test_bits_depend_on_seed_position_and_element_only() -> None:
    long = draw(random_bits(KEY, (64,)))
    np.testing.assert_array_equal(draw(random_bits(KEY, (3, 5))).reshape(-1), long[:15])
    np.testing.assert_array_equal(
        draw(random_bits(KEY, (8,), stream=3)), draw(random_bits(KEY, (8,)), offset=3)
    )
    assert not np.array_equal(draw(random_bits(KEY, (64,), stream=1)), long)
    assert not np.array_equal(draw(random_bits(KEY, (64,)), seed=6), long)


def test_no_words_repeat_within_and_across_streams() -> None:
    bits = np.concatenate([draw(random_bits(KEY, (4096,), stream=s)) for s in range(4)])
    assert len(np.unique(bits)) > len(bits) - 5  # 2**14 of 2**32: 0.03 expected coincidences


@pytest.mark.parametrize("dtype", [float32, float64])
def test_uniform(dtype: DType) -> None:
    u = draw(uniform(KEY, (200, 500), dtype=dtype))
    assert u.dtype == dtype.numpy
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, bins=50, range=(0, 1))[0]
    chi = ((counts - 2000.0) ** 2 / 2000).sum()
    assert chi < 100  # 49 degrees of freedom: mean 49, deviation 10
    assert abs(np.corrcoef(u[:, :-1].ravel(), u[:, 1:].ravel())[0, 1]) < 0.015


@pytest.mark.parametrize("dtype", [float32, float64])
def test_normal(dtype: DType) -> None:
    z = draw(normal(KEY, (200, 500), dtype=dtype)).astype(np.float64)
    assert np.isfinite(z).all()
    assert abs(z.mean()) < 0.015
    assert abs(z.std() - 1) < 0.01
    assert abs((z**3).mean()) < 0.04
    assert abs((z**4).mean() - 3) < 0.12
    assert abs((np.abs(z) < 1).mean() - 0.6827) < 0.006


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="uniform: makes float32 or float64, not int64"):
        uniform(KEY, (2,), dtype=int64)


def test_the_words_of_a_block_share_their_rounds() -> None:
    """Four neighbours are computed together: far fewer high words than twenty for each of them."""
    graph = Graph((KEY,), (random_bits(KEY, (64, 64)),))
    (call,) = (c for g in partition(graph, WIDE).groups for c in lower_group(g, WIDE))
    assert print_kernel(call.kernel).count("mulhi") < 40
