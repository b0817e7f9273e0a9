"""Sampling at places, affine grids, smoothed resizing and fractional pooling against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

from .pairwise import compiled_once  # noqa: E402

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore:Default grid_sample", "ignore:Since version", "ignore:`nn.")


def values_and_gradients(T, function, arrays, compile=False):
    """What `function(namespace, *tensors)` gives, and gradients of its first result to every float input."""

    def run(*tensors):
        xs = [t.detach().requires_grad_() if t.dtype.is_floating_point else t for t in tensors]
        out = function(T, *xs)
        outs = list(out) if isinstance(out, tuple) else [out]
        weights = T.arange(outs[0].numel(), dtype=outs[0].dtype).reshape(outs[0].shape).cos()
        wanted = [x for x in xs if x.requires_grad]
        grads = T.autograd.grad((outs[0] * weights).sum(), wanted, allow_unused=True)
        return [*[o.detach() for o in outs], *grads]

    run = T.compile(run) if compile else run
    found = run(*[T.from_numpy(a.copy()) for a in arrays])
    return [None if t is None else t.numpy() for t in found]


def same(function, arrays, limit):
    expected = values_and_gradients(torch, function, arrays)
    for compile in (False, True):
        for a, b in zip(values_and_gradients(graphc, function, arrays, compile), expected, strict=True):
            assert (a is None) == (b is None)
            if b is not None:
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
                np.testing.assert_allclose(a, b, rtol=0, atol=limit)


# --------------------------------------------------------------------- grid_sample

SHAPES = {
    "2d": ((2, 3, 4, 5), (2, 3, 6, 2)),
    "3d": ((2, 3, 3, 4, 5), (2, 2, 3, 4, 3)),
    "one pixel": ((1, 2, 1, 1), (1, 2, 2, 2)),
}


CASES = [
    {"shape": shape, "mode": mode, "padding": padding}
    for shape in SHAPES
    for mode in ("bilinear", "nearest", "bicubic")
    for padding in ("zeros", "border", "reflection")
    if not (mode == "bicubic" and shape == "3d")  # not in PyTorch either
]


@pytest.mark.parametrize("case", compiled_once(CASES))
def test_grid_sample(case):
    shape, mode, padding_mode = case.values()
    x = RNG.standard_normal(SHAPES[shape][0])
    grid = RNG.uniform(-1.8, 1.8, SHAPES[shape][1])
    grid.reshape(-1)[:5] = -1, 1, 0, 1, -1  # on the borders: no gradient to the place

    def sample(T, x, g):
        """With the corners' centres at -1 and 1, and their edges."""
        parts = [T.nn.functional.grid_sample(x, g, mode, padding_mode, align) for align in (False, True)]
        return T.cat(parts, dim=1)

    same(sample, [x, grid], 1e-9)


def test_grid_sample_float32_and_places_that_are_not_numbers():
    x = RNG.standard_normal((1, 1, 3, 3)).astype(np.float32)
    grid = np.array([[[[0.1, 0.2], [np.inf, 0], [np.nan, np.nan], [-1e30, 0.5]]]], np.float32)
    results = [T.nn.functional.grid_sample(T.from_numpy(x), T.from_numpy(grid)) for T in (graphc, torch)]
    np.testing.assert_allclose(*[r.numpy() for r in results], rtol=1e-5)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 2, 4, 5), (1, 1, 1, 3)], ids=str)
def test_affine_grid(size, align):
    rank = len(size) - 2
    theta = RNG.standard_normal((size[0], rank, rank + 1))
    same(lambda T, t: T.nn.functional.affine_grid(t, size, align_corners=align), [theta], 1e-12)


def test_the_identity_is_the_identity():
    x = graphc.from_numpy(RNG.standard_normal((2, 3, 4, 5)).astype(np.float32))
    theta = graphc.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3)
    for align in (False, True):
        grid = graphc.nn.functional.affine_grid(theta, (2, 3, 4, 5), align)
        out = graphc.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=align)
        np.testing.assert_allclose(out.numpy(), x.numpy(), atol=1e-5)


X, G = np.zeros((2, 3, 4, 5), np.float32), np.zeros((2, 6, 7, 2), np.float32)
SAMPLE, AFFINE = "grid_sample", "affine_grid"
MISTAKES = {
    "mode": (SAMPLE, (X, G, "cubic"), {}),
    "padding": (SAMPLE, (X, G, "nearest", "wrap"), {}),
    "batch": (SAMPLE, (X, G[:1]), {}),
    "last": (SAMPLE, (X, G[..., :1]), {}),
    "rank": (SAMPLE, (X, G[0]), {}),
    "dtype": (SAMPLE, (X, G.astype(np.float64)), {}),
    "empty": (SAMPLE, (X[:, :, :0], G), {}),
    "bicubic 5d": (SAMPLE, (X[..., None], np.zeros((2, 1, 1, 1, 3), np.float32), "bicubic"), {}),
    "theta": (AFFINE, (G[0], (2, 3, 4, 5)), {}),
    "theta dtype": (AFFINE, (np.zeros((2, 2, 3), np.int64), (2, 3, 4, 5)), {}),
    "size": (AFFINE, (np.zeros((2, 2, 3), np.float32), (2, 3, 4)), {}),
    "size zero": (AFFINE, (np.zeros((2, 2, 3), np.float32), (2, 3, 4, 0)), {}),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    function, arguments, options = MISTAKES[name]
    errors = []
    for T in (torch, graphc):
        given = [T.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arguments]
        with pytest.raises(Exception) as caught:
            getattr(T.nn.functional, function)(*given, **options)
        errors.append(caught.value)
    assert type(errors[1]) is type(errors[0])
    assert "test_sampling.py" in str(errors[1])


# ------------------------------------------------------------------------ resizing


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align", [False, True])
def test_antialias(mode, align):
    x = RNG.standard_normal((2, 3, 13, 9))
    for options in ({"size": (5, 4)}, {"size": (17, 3)}, {"size": (1, 1)}, {"scale_factor": (0.4, 1.3)}):

        def resize(T, x, options=options):
            return T.nn.functional.interpolate(x, mode=mode, align_corners=align, antialias=True, **options)

        same(resize, [x], 1e-6)


def test_antialias_modes():
    for T in (torch, graphc):
        with pytest.raises(ValueError, match="Anti-alias option is restricted to bilinear"):
            T.nn.functional.interpolate(T.zeros(1, 1, 4, 4), 2, mode="nearest", antialias=True)


def test_older_names_of_interpolate():
    x = RNG.standard_normal((1, 2, 3, 4)).astype(np.float32)
    same(lambda T, x: T.nn.functional.upsample(x, scale_factor=2, mode="bilinear"), [x], 1e-5)
    same(lambda T, x: T.nn.functional.upsample_nearest(x, (5, 7)), [x], 1e-6)
    same(lambda T, x: T.nn.functional.upsample_bilinear(x, scale_factor=2), [x], 1e-5)
    same(lambda T, x: T.nn.UpsamplingNearest2d(scale_factor=2)(x), [x], 1e-6)
    same(lambda T, x: T.nn.UpsamplingBilinear2d(size=(5, 7))(x), [x], 1e-5)
    for build in (lambda nn: nn.UpsamplingNearest2d((5, 7)), lambda nn: nn.UpsamplingBilinear2d(None, 2)):
        assert repr(build(graphc.nn)) == repr(build(torch.nn))
    with pytest.warns(UserWarning, match="upsample_nearest` is deprecated"):
        graphc.nn.functional.upsample_nearest(graphc.zeros(1, 1, 2, 2), 4)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("size", [(6, 8), (9, 4), (3, 12), (3, 4), (7, 8), (2, 3), (10, 9)])
def test_nearest_by_whole_factors_and_others(mode, size):
    x = RNG.standard_normal((2, 3, 3, 4)).astype(np.float32)
    same(lambda T, x: T.nn.functional.interpolate(x, size, mode=mode), [x], 1e-6)


def test_nearest_by_whole_factors_looks_no_places_up():
    def ops_of(size):
        x = graphc.zeros(1, 2, 3, 4)
        return {n.op.name for n in graphc.trace(lambda x: graphc.nn.functional.interpolate(x, size), x).nodes}

    assert "take" not in ops_of((6, 12))
    assert "take" in ops_of((6, 7))


# --------------------------------------------------------------- fractional pooling

POOLS = {
    "2d": (2, (2, 3, 9, 8), 3, {"output_size": (2, 3)}),
    "2d one column": (2, (2, 3, 9, 8), (2, 3), {"output_size": (5, 1)}),
    "2d ratio": (2, (2, 3, 9, 8), 2, {"output_ratio": (0.5, 0.7)}),
    "2d one image": (2, (3, 9, 8), 2, {"output_size": 4}),
    "3d": (3, (2, 2, 7, 6, 6), 2, {"output_size": (3, 2, 4)}),
    "3d ratio": (3, (2, 7, 6, 6), (2, 1, 3), {"output_ratio": (0.5, 0.4, 0.5)}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", POOLS)
def test_fractional_max_pool(name, dtype):
    """Maxima, indices and gradients, as function and as module, for the same random numbers."""
    rank, shape, kernel, options = POOLS[name]
    x = RNG.standard_normal(shape).astype(dtype)
    samples = RNG.random((1 if len(shape) == rank + 1 else shape[0], shape[-rank - 1], rank)).astype(dtype)

    def module(T, x):
        layer = getattr(T.nn, f"FractionalMaxPool{rank}d")
        return layer(kernel, **options, return_indices=True, _random_samples=T.from_numpy(samples))(x)

    def function(T, x):
        F = T.nn.functional
        pool = F.fractional_max_pool2d_with_indices if rank == 2 else F.fractional_max_pool3d_with_indices
        return pool(x, kernel, **options, _random_samples=T.from_numpy(samples))

    same(module, [x], 1e-6)
    same(function, [x], 1e-6)


def test_fractional_windows_are_random():
    """Without given numbers: other windows each time, every output an element of the input."""
    graphc.manual_seed(0)
    x = graphc.randn(1, 50, 17, 17)
    found = [graphc.nn.functional.fractional_max_pool2d(x, 2, output_size=8).numpy() for _ in range(2)]
    assert not np.array_equal(*found)
    assert np.isin(found[0], x.numpy()).all()
    values, places = graphc.nn.functional.fractional_max_pool3d(
        x.unsqueeze(2).expand(1, 50, 3, 17, 17), 2, output_size=(1, 8, 8), return_indices=True
    )
    assert values.shape == places.shape == (1, 50, 1, 8, 8)
    assert values.dtype is graphc.float32
    assert places.dtype is graphc.int64


def test_fractional_mistakes():
    x, pool = graphc.zeros(1, 2, 6, 6), graphc.nn.functional.fractional_max_pool2d
    with pytest.raises(RuntimeError, match="too large relative to the input"):
        pool(x, 4, output_size=4)
    with pytest.raises(ValueError, match="either an output_size or an output_ratio"):
        pool(x, 4)
    with pytest.raises(ValueError, match="requires specifying either an output size, or a pooling ratio"):
        graphc.nn.FractionalMaxPool2d(2)
    with pytest.raises(ValueError, match="only one of output_size and output_ratio"):
        graphc.nn.FractionalMaxPool3d(2, 2, 0.5)
    with pytest.raises(ValueError, match="output_ratio must be between 0 and 1"):
        graphc.nn.FractionalMaxPool2d(2, output_ratio=1.5)
    with pytest.raises(RuntimeError, match="expected _random_samples"):
        pool(x, 2, 2, _random_samples=graphc.zeros(1, 2, 3))
    with pytest.raises(RuntimeError, match="expected 3D or 4D input"):
        pool(x[0, 0], 2, 2)
    assert repr(graphc.nn.FractionalMaxPool2d(2, 3)) == repr(torch.nn.FractionalMaxPool2d(2, 3))
