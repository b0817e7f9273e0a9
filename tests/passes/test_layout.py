"""Networks whose convolutions keep channels last: the same numbers, chosen where it pays, and no copy more
than needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as T
from graphc import backend as backends
from graphc import nn, pipeline, threads
from graphc.command.dump import Dump
from graphc.command.target import load
from graphc.ir.graph import Graph
from graphc.ir.node import Kind
from graphc.nn import functional as F
from graphc.passes import layout, simplify
from graphc.program import Machine
from tests.ops.numeric import evaluate


def block(
    channels: int, wide: int, results: int, kernel: int = 3, stride: int = 1, act=nn.ReLU6
) -> nn.Module:
    """Expand, filter each channel, project."""
    return nn.Sequential(
        nn.Conv2d(channels, wide, 1, bias=False),
        nn.BatchNorm2d(wide),
        act(),
        nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False),
        nn.BatchNorm2d(wide),
        act(),
        nn.Conv2d(wide, results, 1),
    )


class Small(nn.Module):
    """What inverted-residual networks are made of: a stem, residuals, squeeze and excite, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.one, self.two = block(16, 48, 16), block(16, 64, 24, 5, 2, nn.SiLU)
        self.gate, self.head = nn.Conv2d(24, 24, 1), nn.Linear(24, 10)

    def forward(self, x):
        x = F.relu6(self.stem(x))
        x = self.two(x + self.one(x))
        x = x * T.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return self.head(x.mean((2, 3)))


class Pooled(nn.Module):
    """Windows, parts side by side, dense and grouped convolutions, and a reader that wants rows of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 5, 2, 2)
        self.wide, self.deep = nn.Conv2d(20, 12, 3, padding=1), nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.groups = nn.Conv2d(32, 32, 3, padding=1, groups=4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        x = T.cat([self.wide(x), F.hardswish(self.deep(x))], 1)
        y = F.avg_pool2d(self.groups(F.max_pool2d(x, 2)), 2)
        return F.softmax(y, -1), y.flatten(2).transpose(1, 2), F.pad(x, (1, 2)), x[:, 3:7]


class Voxels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(2, 18, 3, padding=1), nn.Conv3d(18, 18, 3, 2, 1, groups=18)

    def forward(self, x):
        return self.b(F.relu(self.a(x))) * 2.0


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small": (Small, (2, 3, 34, 38)),
    "pooled": (Pooled, (3, 3, 33, 36)),
    "voxels": (Voxels, (2, 2, 5, 6, 7)),
}


def network(name: str) -> tuple[nn.Module, T.Tensor]:
    make, shape = NETS[name]
    T.manual_seed(0)
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model, T.randn(*shape)


def traced(model: nn.Module, x: T.Tensor) -> Graph:
    with T.no_grad():
        return simplify.run(T.trace(model, x))


def drawn(graph: Graph) -> list[np.ndarray]:
    """Values for the inputs, the same for each name; variances are positive."""
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    return [v if v.ndim > 1 else v**2 + 0.1 for v in values]


@pytest.mark.parametrize("name", NETS)
def test_the_same_graph(name: str) -> None:
    graph = traced(*network(name))
    turned = layout.rewritten(graph)
    assert all(n.attrs.last for n in turned.nodes if n.kind is Kind.CONV)
    values = drawn(graph)
    for a, b in zip(evaluate(graph, values), evaluate(turned, values), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def compiled(graph: Graph, values: list[np.ndarray], target: str) -> list[list[np.ndarray]]:
    """The outputs on one, two and three threads."""
    backend: Any = backends.load("llvm", target)
    run = backend.compile(graph, pipeline.lower(graph, {}, backend.machine).plan)
    results = []
    before = threads.get_num_threads()
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            results.append([np.empty(o.shape, o.dtype.numpy) for o in graph.outputs])
            assert run(values, results[-1]) == 0
    finally:
        threads.set_num_threads(before)
    return results


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize("name", NETS)
def test_compiled(name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it can be, and the same bits whatever the number of threads."""
    monkeypatch.setattr(layout, "WORTH", 1e9)
    graph = traced(*network(name))
    values = drawn(graph)
    one, *others = compiled(graph, values, target)
    for again in others:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(one, again, strict=True))
    for a, b in zip(one, evaluate(graph, values), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(1.0, np.abs(b).max()))


def machine(**options: bool) -> Machine:
    return replace(backends.load("llvm", "x86-64-v4").machine, **options)  # type: ignore[attr-defined]


def turns(graph: Graph, **options: bool) -> bool:
    """Whether convolutions keep channels last."""
    new = layout.run(graph, machine(**options), frozenset(graph.inputs[1:]))
    convs = [n for n in new.nodes if n.kind is Kind.CONV]
    assert len({n.attrs.last for n in convs}) <= 1
    assert (new is graph) == (not convs or not convs[0].attrs.last)
    return new is not graph


def deep(size: int, channels: int, *more: nn.Module) -> Graph:
    blocks = nn.Conv2d(3, channels, 3, 2, 1), block(channels, 4 * channels, channels), *more
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return traced(model.eval(), T.zeros(1, 3, size, size))


def test_where_it_pays() -> None:
    assert turns(deep(112, 16))
    assert not turns(deep(112, 16), layout=False)
    heavy = [nn.Conv2d(16, 128, 3, padding=1), *[nn.Conv2d(128, 128, 3, padding=1) for _ in range(3)]]
    assert not turns(deep(112, 16, *heavy))  # Winograd's algorithm
    assert not turns(traced(nn.Conv2d(3, 32, 3), T.zeros(1, 3, 64, 64)))  # nothing is depthwise
    alone = nn.Conv2d(32, 32, 3, padding=1, groups=32)
    assert not turns(traced(alone, T.zeros(8, 32, 32, 32)))  # turning there and back takes longer
    assert not turns(traced(nn.Conv1d(32, 32, 3, groups=32), T.zeros(8, 32, 32)))


def test_training_stays() -> None:
    model = block(8, 32, 8)
    graph = T.trace(T.grad(lambda x: model(x).square().sum()), T.zeros(2, 8, 32, 32))
    assert not turns(simplify.run(graph))


def test_no_value_is_turned_between_layers() -> None:
    """Of a whole network only the image is read in another order than it has (by the stem, as it is)."""
    new = layout.rewritten(traced(*network("small")))
    turned = [n for n in new.nodes if n.op.name == "transpose" and n.type.rank == 4]
    assert [n.inputs[0].kind for n in turned] == [Kind.INPUT]
    pooled = layout.rewritten(traced(*network("pooled")))
    pools = [n for n in pooled.nodes if n.op.name == "reduce_max" and n.type.rank == 4]
    assert [n.shape[-1] for n in pools][:2] == [20, 32]


def test_option() -> None:
    model, x = network("small")
    with T.no_grad():
        last = T.compile(model)(x).numpy()
        first = T.compile(model, options={"layout": False})(x).numpy()
    np.testing.assert_allclose(last, first, rtol=1e-4, atol=1e-5)
    assert backends.load("llvm(layout=False)").target_key != backends.load("llvm").target_key


def test_dump(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    layers = "nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)"
    file.write_text(f"from graphc import nn\nmodel = nn.Sequential({layers}, nn.AdaptiveAvgPool2d(1))\n")
    target = load(f"{file}:model", ["1x3x96x96"], False)
    for on in (True, False):
        report = Dump(target, False, None, layout=on).report
        assert ("last=true" in report["layout"].text) == on
        assert "last=true" not in report["checks"].text


def test_against_torch() -> None:
    torch = pytest.importorskip("torch")
    model, x = network("small")
    state = {k: torch.from_numpy(v.numpy().copy()) for k, v in model.state_dict().items()}

    def conv(name: str, y, stride: int = 1, padding: int = 0, groups: int = 1):
        return torch.nn.functional.conv2d(
            y, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding, 1, groups
        )

    def norm(name: str, y):
        named = [state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return torch.nn.functional.batch_norm(y, *named)

    def inverted(name: str, y, kernel: int, stride: int, act):
        y = act(norm(f"{name}.1", conv(f"{name}.0", y)))
        wide = y.shape[1]
        return conv(f"{name}.6", act(norm(f"{name}.4", conv(f"{name}.3", y, stride, kernel // 2, wide))))

    relu6, silu = torch.nn.functional.relu6, torch.nn.functional.silu
    y = relu6(conv("stem", torch.from_numpy(x.numpy().copy()), 2, 1))
    y = inverted("two", y + inverted("one", y, 3, 1, relu6), 5, 2, silu)
    y = y * torch.sigmoid(conv("gate", y.mean((2, 3), keepdim=True)))
    want = torch.nn.functional.linear(y.mean((2, 3)), state["head.weight"], state["head.bias"])
    with T.no_grad():
        got = T.compile(model)(x).numpy()
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)
