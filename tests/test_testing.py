"""`graphc.testing.assert_close` decides as torch's does; `graphc.random`; other paths and hints."""

from __future__ import annotations

from typing import Any

import pytest

import graphc as gc
from graphc.testing import assert_close

NAN = float("nan")
PAIRS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "equal": ([1.0, 2.0], [1.0, 2.0], {}),
    "near": ([1.0, 2.0], [1.000001, 2.0], {}),
    "far": ([1.0, 2.0], [1.1, 2.0], {}),
    "near enough": ([1.0, 2.0], [1.1, 2.0], {"rtol": 0.0, "atol": 0.11}),
    "NaN": ([NAN], [NAN], {}),
    "NaN allowed": ([NAN], [NAN], {"equal_nan": True}),
    "shapes": ([1.0], [[1.0]], {}),
    "integers": ([1, 2], [1, 3], {}),
    "dtypes": ([1], [1.0], {}),
    "dtypes allowed": ([1], [1.0], {"check_dtype": False}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_decides_as_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    a, b, options = PAIRS[name]
    outcomes = []
    for T in (torch, gc):
        try:
            T.testing.assert_close(T.tensor(a), T.tensor(b), **options)
            outcomes.append("close")
        except AssertionError as error:
            outcomes.append(str(error).partition("\n")[0].replace("torch", "graphc"))
    assert outcomes[0] == outcomes[1]


def test_nested_values() -> None:
    assert_close({"a": [gc.ones(2), 1.0]}, {"a": [gc.ones(2), 1.0]})
    with pytest.raises(AssertionError, match=r"item \['a'\]\[1\]"):
        assert_close({"a": [gc.ones(2), 1.0]}, {"a": [gc.ones(2), 2.0]})
    with pytest.raises(AssertionError, match="length of the sequences"):
        assert_close([1.0], [1.0, 2.0])
    with pytest.raises(AssertionError, match="keys of the mappings"):
        assert_close({"a": 1.0}, {"b": 1.0})
    with pytest.raises(AssertionError, match="mine"):
        assert_close(1.0, 2.0, msg="mine")
    with pytest.raises(TypeError, match="No comparison pair"):
        assert_close("a", "a")
    with pytest.raises(ValueError, match="both be"):
        assert_close(1.0, 1.0, rtol=0.1)


def test_random_namespace() -> None:
    gc.random.manual_seed(3)
    state = gc.random.get_rng_state()
    with gc.random.fork_rng():
        first = gc.rand(3)
        gc.random.seed()
    assert gc.random.initial_seed() == 3
    assert gc.equal(gc.rand(3), first)
    gc.random.set_rng_state(state)
    assert gc.equal(gc.rand(3), first)
    assert gc.random.default_generator is gc.default_generator


def test_other_paths_of_the_loader() -> None:
    from graphc.utils import data

    assert data.dataloader.DataLoader is data.DataLoader
    assert data.dataloader.default_collate is data.default_collate
    assert data.distributed.DistributedSampler is data.DistributedSampler


HINTS = {
    "fft": "complex",
    "sparse": "sparse",
    "distributed": "one process",
    "onnx": "graphc dump",
    "int8": "uint8",
}


@pytest.mark.parametrize("name", HINTS)
def test_what_is_not_built_says_why(name: str) -> None:
    with pytest.raises(AttributeError, match=HINTS[name]):
        getattr(gc, name)


@pytest.mark.parametrize(
    ("name", "text"), [("half", "float16"), ("as_strided", "strides"), ("svd", "singular")]
)
def test_methods_that_are_not_built_say_why(name: str, text: str) -> None:
    with pytest.raises(AttributeError, match=f"'Tensor' object has no attribute '{name}'.*{text}"):
        getattr(gc.ones(2), name)
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        _ = gc.ones(2).nonsense
    assert not hasattr(gc.ones(2), "nonsense")


@pytest.mark.parametrize("kind", [gc.float32, gc.float64, gc.int64, gc.int32, gc.uint8, gc.bool])
def test_make_tensor_draws_from_the_range_of_its_dtype(kind: Any) -> None:
    gc.manual_seed(0)
    made = gc.testing.make_tensor((50, 40), dtype=kind, exclude_zero=kind is not gc.bool)
    array = made.numpy()
    assert made.dtype is kind
    assert array.shape == (50, 40)
    if kind is gc.bool:
        assert 0.4 < array.mean() < 0.6
    else:
        assert array.min() >= (0 if kind is gc.uint8 else -9)
        assert 8 < array.max() <= 9
        assert (array != 0).all()


def test_make_tensor_takes_ranges_sizes_and_requires_grad() -> None:
    made = gc.testing.make_tensor(3, 200, dtype=gc.float64, low=2, high=3, requires_grad=True)
    assert made.is_leaf
    assert made.requires_grad
    assert 2 <= made.min().item() < made.max().item() < 3
    assert set(gc.testing.make_tensor(99, dtype=gc.int64, low=1, high=3).tolist()) == {1, 2}
    with pytest.raises(ValueError, match="`low` must be less than `high`, but got 3 and 3"):
        gc.testing.make_tensor(2, dtype=gc.float32, low=3, high=3)


def test_is_compiling_tells_a_trace() -> None:
    seen = []

    @gc.compile
    def double(x: gc.Tensor) -> gc.Tensor:
        seen.append(gc.compiler.is_compiling())
        return x * 2

    double(gc.ones(2))
    assert seen[0] is True
    assert gc.compiler.is_compiling() is False
    assert not hasattr(gc.compiler, "disable")
