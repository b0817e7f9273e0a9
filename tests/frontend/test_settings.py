"""Switches that programs for PyTorch set before they start: accepted where nothing is lost, else refused."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc import nn


def test_accelerators_are_absent() -> None:
    """The first lines of PyTorch's quickstart."""
    assert not graphc.accelerator.is_available()
    assert graphc.accelerator.current_accelerator() is None
    assert graphc.accelerator.device_count() == 0
    graphc.accelerator.synchronize()
    assert not graphc.backends.mps.is_available()
    assert not graphc.backends.mps.is_built()
    assert not graphc.backends.cuda.is_built()
    assert not graphc.backends.cudnn.is_available()
    assert graphc.backends.cudnn.version() is None


def test_switches_of_gpu_libraries_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("benchmark", True),
        ("deterministic", True),
        ("enabled", True),
        ("allow_tf32", True),
    ):
        monkeypatch.setattr(graphc.backends.cudnn, name, value)
    monkeypatch.setattr(graphc.backends.cuda.matmul, "allow_tf32", True)
    with pytest.raises(ValueError, match="unknown backend 'cudnn'"):
        graphc.set_backend("cudnn")


def test_determinism_and_precision() -> None:
    assert not graphc.are_deterministic_algorithms_enabled()
    graphc.use_deterministic_algorithms(True, warn_only=True)
    assert graphc.are_deterministic_algorithms_enabled()
    graphc.use_deterministic_algorithms(False)
    with pytest.raises(TypeError, match="mode must be a bool"):
        graphc.use_deterministic_algorithms("yes")  # type: ignore[arg-type]
    assert graphc.get_float32_matmul_precision() == "highest"
    graphc.set_float32_matmul_precision("high")
    assert graphc.get_float32_matmul_precision() == "high"
    graphc.set_float32_matmul_precision("highest")
    with pytest.raises(ValueError, match="highest, high, medium"):
        graphc.set_float32_matmul_precision("low")


def test_default_device() -> None:
    graphc.set_default_device("cpu")
    assert graphc.get_default_device() == graphc.device("cpu")
    with pytest.raises(RuntimeError, match="CPU only"):
        graphc.set_default_device("cuda")


@pytest.mark.parametrize("name", ["float16", "bfloat16", "complex64", "jit"])
def test_what_is_not_built_says_so(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"module 'graphc' has no attribute '{name}' \("):
        getattr(graphc, name)
    assert not hasattr(graphc, "no_such_name")


def train(scaler: Any, cast: Any) -> list[float]:
    graphc.manual_seed(0)
    model, losses = nn.Linear(3, 1), []
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        with cast:
            loss = model(graphc.ones(2, 3)).square().mean()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses


def test_mixed_precision_that_is_off() -> None:
    """The recipe of PyTorch's tutorial, with use_amp=False."""
    scaler = graphc.amp.GradScaler("cpu", enabled=False)
    losses = train(scaler, graphc.autocast("cpu", enabled=False))
    assert losses[2] < losses[0]
    assert scaler.get_scale() == 1
    assert not scaler.is_enabled()
    scaler.load_state_dict(scaler.state_dict())

    @graphc.amp.autocast("cpu", enabled=False)
    def double(x: float) -> float:
        return 2 * x

    assert double(2) == 4
    assert double.__name__ == "double"


def test_mixed_precision_for_cuda_disables_itself() -> None:
    with pytest.warns(UserWarning, match="CUDA is not available. Disabling autocast"):
        cast = graphc.cuda.amp.autocast()
    with pytest.warns(UserWarning, match="GradScaler is enabled, but CUDA is not available"):
        scaler = graphc.cuda.amp.GradScaler()
    assert train(scaler, cast) == train(graphc.amp.GradScaler(enabled=False), cast)


def test_mixed_precision_on_the_cpu_is_refused() -> None:
    with pytest.raises(RuntimeError, match="lower precision is not built"):
        graphc.autocast("cpu")
    with pytest.raises(RuntimeError, match="float16 is not built"):
        graphc.amp.GradScaler("cpu")


def test_classes_by_dtype() -> None:
    """`FloatTensor` and the others make tensors, convert to their dtype, and know their instances."""
    x = graphc.tensor([0, 2])
    assert x.type(graphc.FloatTensor).dtype is graphc.float32
    assert x.type("graphc.DoubleTensor").dtype is graphc.float64
    assert (x > 1).type(graphc.IntTensor).tolist() == [0, 1]
    assert isinstance(x, graphc.LongTensor)
    assert not isinstance(x, graphc.FloatTensor)
    assert not isinstance(1, graphc.LongTensor)
    assert graphc.BoolTensor([True]).dtype is graphc.bool
    assert graphc.ByteTensor(2, 3).shape == (2, 3)
    with pytest.raises(TypeError, match="must be a dtype, its name or its class, got 3"):
        x.type(3)


def test_default_tensor_type() -> None:
    try:
        for kind in ("torch.DoubleTensor", graphc.DoubleTensor):
            graphc.set_default_tensor_type(kind)
            assert graphc.zeros(1).dtype is graphc.float64
            graphc.set_default_tensor_type("graphc.FloatTensor")
            assert graphc.zeros(1).dtype is graphc.float32
        for wrong in ("torch.LongTensor", graphc.LongTensor, 3):
            with pytest.raises(TypeError, match="only FloatTensor and DoubleTensor"):
                graphc.set_default_tensor_type(wrong)
    finally:
        graphc.set_default_dtype(graphc.float32)


def test_threads_between_operations() -> None:
    graphc.set_num_interop_threads(2)
    assert graphc.get_num_interop_threads() == 1
    with pytest.raises(RuntimeError, match="positive"):
        graphc.set_num_interop_threads(0)


def test_functions_decorated_for_autocast_are_themselves() -> None:
    class Double(graphc.autograd.Function):
        @staticmethod
        @graphc.amp.custom_fwd(device_type="cpu", cast_inputs=graphc.float32)
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return x * 2

        @staticmethod
        @graphc.cuda.amp.custom_bwd
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            return g * 2

    x = graphc.ones(2, requires_grad=True)
    Double.apply(x).sum().backward()
    assert x.grad.tolist() == [2, 2]
