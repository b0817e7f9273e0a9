"""The option that keeps Winograd's algorithm out of convolutions: where it is given, and what it changes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc
from graphc import backend as backends
from graphc import ops, pipeline
from graphc.command.dump import Dump
from graphc.command.target import load
from graphc.frontend.evaluation import lazy
from graphc.frontend.modes import settle
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, float32
from graphc.nn import functional as F

pytestmark = pytest.mark.native


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    before = lazy.SETTINGS.backend
    yield
    lazy.SETTINGS.backend = before


def kernels(program) -> set[str]:
    """The names of a compiled program's kernels."""
    return set(getattr(program, "main", program).code.executable.image.names)


def program_of(compiled):
    ((variant,),) = compiled._variants.values()
    return variant.program


@pytest.fixture
def tensors() -> tuple[graphc.Tensor, graphc.Tensor]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 64, 14, 14)).astype(np.float32)
    w = rng.standard_normal((64, 64, 3, 3)).astype(np.float32)
    return graphc.from_numpy(x), graphc.from_numpy(w)


def layer(x, w):
    return F.conv2d(x, w, padding=1)


def test_compile(tensors) -> None:
    fast = graphc.compile(layer)
    exact = graphc.compile(layer, options={"winograd": False})
    a, b = fast(*tensors).numpy(), exact(*tensors).numpy()
    assert any("winograd" in name for name in kernels(program_of(fast)))
    assert not any("winograd" in name for name in kernels(program_of(exact)))
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


def test_decorator_and_override(tensors) -> None:
    graphc.set_backend("llvm", winograd=False)
    on = graphc.compile(options={"winograd": True})(layer)
    off = graphc.compile(layer)
    on(*tensors).numpy(), off(*tensors).numpy()
    assert any("winograd" in name for name in kernels(program_of(on)))
    assert not any("winograd" in name for name in kernels(program_of(off)))


def test_set_backend_changes_later_values(tensors) -> None:
    fast = layer(*tensors).numpy()
    graphc.set_backend("llvm", winograd=False)
    direct = layer(*tensors).numpy()
    graphc.set_backend("llvm")
    assert not np.array_equal(fast, direct)
    assert np.array_equal(fast, layer(*tensors).numpy())


def test_refused() -> None:
    with pytest.raises(TypeError, match="must be a bool"):
        graphc.set_backend("llvm", winograd=1)
    with pytest.raises(ValueError, match="no option 'winogard'"):
        graphc.set_backend("llvm", winogard=False)
    with pytest.raises(ValueError, match="'reference' has no option"):
        graphc.compile(layer, backend="reference", options={"winograd": False})
    with pytest.raises(ValueError, match="unknown backend"):
        graphc.set_backend("llvm(")


def test_names() -> None:
    off = backends.with_options("llvm", {"winograd": False})
    assert backends.load(off).machine.winograd is False
    assert backends.load("llvm").machine.winograd is True
    assert backends.with_options(off, {"winograd": True}) == "llvm(winograd=True)"
    assert backends.load(off).target_key != backends.load("llvm").target_key


def test_dump(tmp_path) -> None:
    file = tmp_path / "model.py"
    file.write_text("from graphc import nn\nmodel = nn.Conv2d(64, 64, 3, padding=1)\n")
    target = load(f"{file}:model", ["4x64x14x14"], False)
    for winograd in (True, False):
        dump = Dump(target, False, None, winograd)
        assert any("winograd" in k.name for k in dump.report.kernels) == winograd


def test_inspect(tensors) -> None:
    graph = load_graph()
    for name, expected in (("llvm", True), ("llvm(winograd=False)", False)):
        report = pipeline.inspect(graph, backend=name)
        assert any("winograd" in k.name for k in report.kernels) == expected


def load_graph():
    x = ops.input_("x", TensorType((4, 64, 14, 14), float32))
    w = ops.input_("w", TensorType((64, 64, 3, 3), float32))
    return Graph((x, w), (ops.conv(x, w, low=(1, 1), high=(1, 1)),))


def losses_and_weights(use: str, **options: bool) -> list[np.ndarray]:
    """Two training steps with a convolution compiled with `options`; what they leave."""
    graphc.manual_seed(0)
    net = graphc.nn.Conv2d(64, 64, 3, padding=1)
    rate = graphc.nn.Parameter(graphc.ones(()))
    x = graphc.randn(4, 64, 14, 14)
    call, criterion = graphc.compile(net, options=options), graphc.nn.MSELoss(reduction="sum")
    optimizer = graphc.optim.SGD([*net.parameters(), rate], lr=1e-5)
    found = []
    for _ in range(2):
        optimizer.zero_grad()
        y = call(x)
        loss = y.pow(2).sum() * rate if use == "plain code" else criterion(y, x)
        loss.backward()
        if use == "gradients":
            found += [loss.detach().numpy(), *[p.grad.numpy() for p in net.parameters()]]
        optimizer.step()
        found += [p.detach().numpy() for p in net.parameters()]
    return found


@pytest.mark.parametrize("use", ["one program", "gradients", "plain code"])
def test_options_hold_for_the_backward_pass(use: str) -> None:
    """In a noted step as in one whose gradients are read: the bits of `set_backend`."""
    fast, exact = losses_and_weights(use), losses_and_weights(use, winograd=False)
    assert lazy.MODE.backend is None, "what was wanted is done"
    graphc.set_backend("llvm", winograd=False)
    everywhere = losses_and_weights(use)
    for a, b, c in zip(fast, exact, everywhere, strict=True):
        np.testing.assert_array_equal(b, c)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())
    assert not all(np.array_equal(a, b) for a, b in zip(fast, exact, strict=True))


def test_functions_compiled_for_two_backends_in_one_step() -> None:
    """No program runs on both: the step is done as one that cannot be noted, with the same numbers."""
    seen = []
    for first, second in ((None, None), ("reference", "llvm")):
        graphc.manual_seed(0)
        a, b = graphc.nn.Linear(3, 4), graphc.nn.Linear(4, 2)
        optimizer = graphc.optim.SGD([*a.parameters(), *b.parameters()], lr=0.1)
        f, g = graphc.compile(a, backend=first), graphc.compile(b, backend=second)
        for _ in range(3):
            optimizer.zero_grad()
            g(f(graphc.ones(2, 3))).pow(2).sum().backward()
            optimizer.step()
        seen.append([p.detach().numpy() for p in (*a.parameters(), *b.parameters())])
    for x, y in zip(*seen, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_options_of_a_call_whose_result_is_dropped_hold_for_nothing_else(tensors) -> None:
    net = graphc.nn.Conv2d(64, 64, 3, padding=1)
    call = graphc.compile(net, options={"winograd": False})
    x = graphc.randn(4, 64, 14, 14)
    result = call(x)
    settle()
    assert lazy.MODE.backend == "llvm(winograd=False)"
    del result
    kept = net(x)  # pending, and nothing that `call` knows of
    assert lazy.MODE.backend is None
    result = call(x)
    settle()
    twice = result * 2
    del result
    assert lazy.MODE.backend == "llvm(winograd=False)", "what was made of it wants it too"
    assert np.isfinite(twice.detach().numpy()).all()
    assert np.isfinite(kept.detach().numpy()).all()
    assert lazy.MODE.backend is None
