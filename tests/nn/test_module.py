"""Module machinery: registering, walking, state dicts and their errors, hooks, modes, copies, error paths."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402
from graphc import nn  # noqa: E402


def make(T):
    """The same model in both libraries: nesting, sharing, buffers, lists and dicts."""

    class Block(T.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = T.nn.Conv2d(2, 2, 1)
            self.norm = T.nn.BatchNorm2d(2)
            self.register_buffer("hidden", T.zeros(2), persistent=False)

        def forward(self, x):
            return self.norm(self.conv(x))

    class Net(T.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = T.nn.ModuleList([Block(), Block(), T.nn.ReLU()])
            self.named = T.nn.ModuleDict({"a": T.nn.Linear(2, 2), "b": T.nn.Linear(2, 3, bias=False)})
            self.scales = T.nn.ParameterList([T.nn.Parameter(T.ones(2)), T.nn.Parameter(T.zeros(1))])
            self.extra = T.nn.ParameterDict(
                {"x": T.nn.Parameter(T.ones(2, 3)), "y": T.nn.Parameter(T.ones(1))}
            )
            self.head = T.nn.Sequential(OrderedDict([("fc", T.nn.Linear(3, 3)), ("act", T.nn.Tanh())]))
            self.tied = self.head
            self.nothing = None
            self.register_parameter("unused", None)
            self.register_buffer("steps", T.tensor(0))
            self.alpha = T.nn.Parameter(T.tensor(0.5))

    return Net()


def test_walks_and_repr_equal_torch():
    ours, theirs = make(graphc), make(torch)
    assert repr(ours).replace("graphc.", "torch.") == repr(theirs)
    for method in ("named_modules", "named_parameters", "named_buffers", "named_children"):
        assert [n for n, _ in getattr(ours, method)()] == [n for n, _ in getattr(theirs, method)()]
    assert [n for n, _ in ours.named_modules(remove_duplicate=False)] == [
        n for n, _ in theirs.named_modules(remove_duplicate=False)
    ]
    assert [n for n, _ in ours.named_parameters(prefix="p", recurse=False)] == ["p.alpha"]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.state_dict()._metadata == theirs.state_dict()._metadata
    assert len(list(ours.modules())) == len(list(theirs.modules()))
    assert ours.get_submodule("blocks.1.conv") is ours.blocks[1].conv
    assert ours.get_parameter("head.fc.weight") is ours.tied.fc.weight


def load_error(model, state, strict=True):
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state, strict=strict)
    return str(caught.value)


def test_load_state_dict_errors_are_torchs_and_change_nothing():
    texts = []
    for T in (graphc, torch):
        model = make(T)
        state = model.state_dict()
        state = OrderedDict((k, v + 1) for k, v in state.items())
        del state["head.fc.bias"], state["alpha"]
        state["blocks.0.conv.weight"] = T.ones(3, 2, 1, 1)
        state["stranger.weight"] = T.ones(1)
        before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
        texts.append(load_error(model, state))
        if T is graphc:
            for k, v in model.state_dict().items():
                np.testing.assert_array_equal(v.numpy(), before[k])
            assert "size mismatch for blocks.0.conv.weight" in load_error(model, state, strict=False)
    ours, place = texts[0].rsplit("\n  at ", 1)
    assert ours.replace("graphc.Size", "torch.Size") == texts[1]
    assert "test_module.py:" in place


def test_load_state_dict_not_strict_and_assign():
    model = nn.Linear(2, 3)
    result = model.load_state_dict({"weight": graphc.ones(3, 2), "other": graphc.ones(1)}, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["bias"], ["other"])
    assert model.weight.sum().item() == 6
    value = graphc.zeros(3, 2)
    weight = model.weight
    model.load_state_dict({"weight": value, "bias": graphc.zeros(3)}, assign=True)
    assert model.weight is not weight
    assert model.weight.requires_grad
    assert str(model.load_state_dict(model.state_dict())) == "<All keys matched successfully>"
    with pytest.raises(TypeError, match="dict-like"):
        model.load_state_dict([1])
    assert "received <class 'int'>" in load_error(model, {"weight": 3, "bias": graphc.zeros(3)})


def test_state_dict_shares_memory_and_extra_state():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 3

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    model = nn.Sequential(nn.Linear(2, 2), Counter())
    state = model.state_dict()
    assert state["1._extra_state"] == {"count": 3}
    with graphc.no_grad():
        model[0].weight.fill_(7)
    assert state["0.weight"].sum().item() == 28
    model[1].count = 0
    model.load_state_dict(state)
    assert model[1].count == 3


def test_registering_checks():
    model = nn.Module()
    with pytest.raises(KeyError, match="contain"):
        model.register_parameter("a.b", None)
    with pytest.raises(KeyError, match="already exists"):
        model.register_buffer("forward", graphc.ones(1))
    with pytest.raises(TypeError, match="Parameter or None required"):
        model.register_parameter("w", graphc.ones(1))
    with pytest.raises(TypeError, match="is not a Module subclass"):
        model.add_module("m", 3)
    model.w = nn.Parameter(graphc.ones(2))
    with pytest.raises(TypeError, match="as parameter 'w'"):
        model.w = graphc.ones(2)
    with pytest.raises(AttributeError, match="has no attribute 'missing'"):
        _ = model.missing
    del model.w
    assert list(model.parameters()) == []
    with pytest.raises(NotImplementedError, match="missing the required"):
        model(1)

    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Early()
    model.buffered = nn.Buffer(graphc.zeros(2), persistent=False)
    assert list(model.state_dict()) == []
    model.later = None
    model.later = nn.Linear(1, 1)
    assert "later" in dict(model.named_children())


def test_hooks():
    layer, seen = nn.Linear(2, 2), []
    x = graphc.ones(1, 2)
    pre = layer.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    post = layer.register_forward_hook(lambda m, args, out: seen.append(args[0].sum().item()))
    layer(x)
    assert seen == [4.0]
    pre.remove()
    pre.remove()
    layer(x)
    assert seen == [4.0, 2.0]
    post.remove()
    with layer.register_forward_hook(lambda m, a, k, out: out * 0, with_kwargs=True):
        assert layer(input=x).abs().sum().item() == 0
    assert layer(x).abs().sum().item() != 0
    layer.register_forward_hook(lambda *a: seen.append("always"), always_call=True)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(graphc.ones(1, 3))
    assert seen[-1] == "always"


def test_modes_apply_and_grads():
    model = make(graphc)
    assert model.eval().blocks[0].norm.training is False
    assert model.train().blocks[0].norm.training is True
    names = []
    model.apply(lambda m: names.append(type(m).__name__))
    theirs = []
    make(torch).apply(lambda m: theirs.append(type(m).__name__))
    assert names == theirs
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    layer = nn.Linear(2, 1)
    layer(graphc.ones(1, 2)).sum().backward()
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad.abs().sum().item() == 0
    layer.zero_grad()
    assert layer.weight.grad is None
    with pytest.raises(ValueError, match="expected to be boolean"):
        layer.train(1)


def test_to_dtype_and_device():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.to(graphc.float64).to("cpu").to(memory_format=None)
    assert {p.dtype for p in model.parameters()} == {graphc.float64}
    assert model[1].num_batches_tracked.dtype is graphc.int64
    assert model.float()[0].weight.dtype is graphc.float32
    with pytest.raises(TypeError, match="only accepts floating point"):
        model.to(graphc.int64)
    with pytest.raises(RuntimeError, match="cuda"):
        model.to("cuda:0")


def test_deepcopy_is_independent():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.shared = model[0].weight
    twin = copy.deepcopy(model)
    assert twin.shared is twin[0].weight
    with graphc.no_grad():
        twin[0].weight.fill_(3)
    assert (model[0].weight == 3).sum().item() == 0
    assert isinstance(twin[0].weight, nn.Parameter)
    assert twin[0].weight.requires_grad
    assert repr(twin) == repr(model)


def test_containers():
    for T in (graphc, torch):
        seq = T.nn.Sequential(T.nn.Linear(1, 2), T.nn.ReLU(), T.nn.Linear(2, 3))
        assert len(seq[:2]) == 2
        assert isinstance(seq[-1], T.nn.Linear)
        del seq[1]
        assert list(dict(seq.named_children())) == ["0", "1"]
        seq.append(T.nn.Tanh()).insert(0, T.nn.Identity())
        assert [type(m).__name__ for m in seq] == ["Identity", "Linear", "Linear", "Tanh"]
        assert len(seq + seq) == 8
        assert len(seq * 2) == 8
        layers = T.nn.ModuleList([T.nn.Linear(1, 1)])
        layers += [T.nn.ReLU()]
        layers.insert(0, T.nn.Tanh())
        layers[1] = T.nn.Identity()
        assert [type(m).__name__ for m in layers] == ["Tanh", "Identity", "ReLU"]
        assert layers.pop(0).__class__.__name__ == "Tanh"
        table = T.nn.ModuleDict([["x", T.nn.ReLU()]])
        table.update({"y": T.nn.Tanh()})
        assert list(table.keys()) == ["x", "y"]
        assert "x" in table
        table.pop("x")
        assert len(table) == 1
        with pytest.raises(IndexError):
            seq[9]
        values = T.nn.ParameterList([T.ones(1)])
        values.append(T.nn.Parameter(T.zeros(2)))
        assert len(list(values.parameters())) == 2
        assert len(values[:1]) == 1
        table = T.nn.ParameterDict({"a": T.ones(1)})
        table["b"] = T.nn.Parameter(T.ones(2))
        assert sorted(dict(table.named_parameters())) == ["a", "b"]
        assert [k for k, _ in table.items()] == ["a", "b"]


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(3, 2)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Identity(), Inner())

    def forward(self, x):
        return self.body(x)


def test_errors_name_the_module_path_and_line():
    with pytest.raises(RuntimeError) as caught:
        Outer()(graphc.ones(1, 2))
    text = str(caught.value)
    assert "1x2 and 3x2" in text
    assert "Outer.body.1.layers.1" in text
    assert "test_module.py" in text
    with pytest.raises(RuntimeError) as caught:  # the path is that of the present call, not of the failed one
        nn.Conv2d(3, 4, 3)(graphc.ones(1, 1, 8, 8))
    assert "expected input[1, 1, 8, 8] to have 3 channels, but got 1 channels" in str(caught.value)
    assert "Outer" not in str(caught.value)


def test_wrong_layer_arguments():
    with pytest.raises(ValueError, match="divisible by groups"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="strided"):
        nn.Conv2d(3, 4, 3, stride=2, padding="same")
    with pytest.raises(ValueError, match="between 0 and 1"):
        nn.Dropout(1.5)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        nn.Conv2d(1, 1, 5)(graphc.ones(1, 1, 3, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(3)(graphc.ones(1, 3))
    with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
        nn.BatchNorm2d(3)(graphc.ones(1, 3, 2))
    with pytest.raises(RuntimeError, match=r"Input type \(float64\) and weight type \(float32\)"):
        nn.Conv2d(1, 1, 1)(graphc.ones(1, 1, 3, 3, dtype=graphc.float64))
    with pytest.raises(IndexError, match="embedding: index is out of bounds"):
        nn.Embedding(3, 2)(graphc.tensor([3])).sum().item()
    with pytest.raises(RuntimeError, match="too small"):
        nn.MaxPool2d(4)(graphc.ones(1, 1, 3, 3))


def test_a_prefix_of_all_keys_is_told() -> None:
    """As wrappers of models leave it; not where only some keys have it."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state = model.state_dict()
    with pytest.raises(
        RuntimeError, match=r'prefix "module\.": take it off with key\.removeprefix\("module\."\)'
    ):
        model.load_state_dict({f"module.{key}": value for key, value in state.items()})
    part = {f"module.{key}": value for key, value in state.items() if "bias" in key}
    with pytest.raises(RuntimeError, match="Unexpected key") as caught:
        model.load_state_dict(part)
    assert "prefix" not in str(caught.value)
