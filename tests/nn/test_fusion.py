"""Batch norms folded into layers: the same results as the two layers, and as torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.nn import utils


def trained(norm: Any) -> Any:
    with gc.no_grad():
        for i, t in enumerate((norm.running_mean, norm.running_var, norm.weight, norm.bias)):
            if t is not None:
                t.copy_(gc.linspace(0.5 + i, 1.5 + i, t.numel()))
    return norm.eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_convolutions(bias: bool, affine: bool) -> None:
    conv, norm = nn.Conv2d(3, 4, 3, bias=bias).eval(), trained(nn.BatchNorm2d(4, affine=affine))
    x = gc.randn(2, 3, 6, 6)
    fused = utils.fuse_conv_bn_eval(conv, norm)
    np.testing.assert_allclose(
        fused(x).detach().numpy(), norm(conv(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    assert fused is not conv
    assert isinstance(fused.bias, nn.Parameter)


def test_transposed_and_linear() -> None:
    conv, norm = nn.ConvTranspose2d(3, 4, 3).eval(), trained(nn.BatchNorm2d(4))
    x = gc.randn(2, 3, 5, 5)
    fused = utils.fuse_conv_bn_eval(conv, norm, transpose=True)
    np.testing.assert_allclose(
        fused(x).detach().numpy(), norm(conv(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    linear, norm = nn.Linear(3, 4).eval(), trained(nn.BatchNorm1d(4))
    x = gc.randn(6, 3)
    fused = utils.fuse_linear_bn_eval(linear, norm)
    np.testing.assert_allclose(
        fused(x).detach().numpy(), norm(linear(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )


def test_weights_like_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.5, 1.5, s).astype(np.float32) for s in ((4, 3, 2, 2), 4, 4, 4, 4, 4)]
    for name in ("fuse_conv_bn_weights", "fuse_linear_bn_weights"):
        results = []
        for T, tools in ((torch, torch.nn.utils), (gc, utils)):
            weight, bias, mean, var, gain, shift = (T.from_numpy(a.copy()) for a in arrays)
            if "linear" in name:
                weight = weight.reshape(4, -1)
            results.append(getattr(tools, name)(weight, bias, mean, var, 1e-5, gain, shift))
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=1e-6)


def test_refusals() -> None:
    with pytest.raises(AssertionError, match="only for eval"):
        utils.fuse_conv_bn_eval(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(AssertionError, match="running statistics"):
        utils.fuse_linear_bn_eval(nn.Linear(3, 4).eval(), nn.BatchNorm1d(4, track_running_stats=False).eval())
    assert isinstance(utils.skip_init(nn.Linear, 3, 4), nn.Linear)
