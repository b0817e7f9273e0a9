"""Repeated calls look only at what may have changed: whatever does change must be noticed."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import graphc
from graphc import nn, optim


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))


def forward(model: nn.Module, x: graphc.Tensor) -> np.ndarray:
    """By NumPy, without dropout."""
    first, last = model[0], model[3]
    hidden = np.maximum(x.numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
    return hidden @ last.weight.detach().numpy().T + last.bias.detach().numpy()


def close(found: graphc.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture
def model() -> nn.Module:
    graphc.manual_seed(0)
    return network().eval()


def test_parameters_written_between_calls_are_read(model: nn.Module) -> None:
    run, x = graphc.compile(model), graphc.randn(4, 48)
    with graphc.no_grad():
        for change in (lambda w: w.mul_(2), lambda w: w.copy_(graphc.randn(64, 48)), lambda w: w[3].fill_(1)):
            close(run(x), forward(model, x))
            close(run(x), forward(model, x))
            change(model[0].weight)
            close(run(x), forward(model, x))
    assert run.compilations == 1


def test_a_replaced_parameter_is_read(model: nn.Module) -> None:
    run, x = graphc.compile(model), graphc.randn(4, 48)
    with graphc.no_grad():
        run(x)
        model[3].weight = nn.Parameter(graphc.randn(10, 64))
        close(run(x), forward(model, x))


def test_modules_of_one_structure_take_turns_with_one_executable() -> None:
    models = [network().eval() for _ in range(3)]
    runs, x = [graphc.compile(m) for m in models], graphc.randn(4, 48)
    with graphc.no_grad():
        for _ in range(3):
            for m, run in zip(models, runs, strict=True):
                close(run(x), forward(m, x))


def test_training_mode_is_noticed(model: nn.Module) -> None:
    run, x = graphc.compile(model), graphc.randn(4, 48)
    with graphc.no_grad():
        for _ in range(2):
            model.eval()
            close(run(x), forward(model, x))
            model.train()
            assert not np.allclose(run(x).numpy(), forward(model, x))
    assert run.compilations == 2


def test_requires_grad_is_noticed(model: nn.Module) -> None:
    run, x = graphc.compile(model), graphc.randn(4, 48)
    model.requires_grad_(False)
    assert not run(x).requires_grad
    model[0].bias.requires_grad_(True)
    result = run(x)
    assert result.requires_grad
    result.sum().backward()
    assert model[0].bias.grad is not None
    model[0].bias.detach_()
    assert not run(x).requires_grad


def test_arguments_of_other_types_and_places(model: nn.Module) -> None:
    """Views, lazy values and arrays of another batch, between calls with the same array."""
    run, x = graphc.compile(model), graphc.randn(4, 48)
    with graphc.no_grad():
        for argument in (x, graphc.randn(8, 48)[2:6], x + 1, x, graphc.randn(48, 4).t(), graphc.randn(2, 48)):
            close(run(argument), forward(model, argument))
            close(run(x), forward(model, x))


def test_results_of_calls_are_apart(model: nn.Module) -> None:
    run = graphc.compile(model)
    inputs = [graphc.randn(4, 48) for _ in range(3)]
    with graphc.no_grad():
        results = [run(x) for x in inputs]
    for x, result in zip(inputs, results, strict=True):
        close(result, forward(model, x))


def test_threads_and_arena_may_change_between_calls(model: nn.Module) -> None:
    """Another program grows the arena and the scratch; another number of threads makes another team."""
    threads = graphc.get_num_threads()
    run, x = graphc.compile(model), graphc.randn(256, 48)
    try:
        with graphc.no_grad():
            wanted = run(x).numpy()
            for count in (3, 1, 2, 2):
                graphc.set_num_threads(count)
                size = 512 * (count + 1)
                big = graphc.randn(size, size)
                (big @ big @ big).sum().item()
                np.testing.assert_array_equal(run(x).numpy(), wanted)
    finally:
        graphc.set_num_threads(threads)


def test_state_set_between_steps_is_used() -> None:
    """Compiled training steps bind parameters and optimizer state once; what replaces them is bound again."""
    results = []
    for compiled in (True, False):
        graphc.manual_seed(0)
        layer = nn.Linear(6, 3)
        update = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        x, y = graphc.randn(5, 6), graphc.randn(5, 3)

        def step(x=x, y=y, layer=layer, update=update):
            update.zero_grad()
            loss = ((layer(x) - y) ** 2).mean()
            loss.backward()
            update.step()
            return loss

        run = graphc.compile(step) if compiled else step
        losses = [run().item() for _ in range(3)]
        held = layer.weight.detach().clone()
        with graphc.no_grad():
            layer.weight.copy_(graphc.ones(3, 6))
        losses += [run().item() for _ in range(2)]
        layer.load_state_dict({"weight": held, "bias": layer.bias.detach().clone()})
        losses += [run().item() for _ in range(2)]
        results.append(losses)
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_state_is_let_go_with_the_function() -> None:
    model = network().eval()
    run, x = graphc.compile(model), graphc.randn(4, 48)
    with graphc.no_grad():
        run(x)
        run(x)
    watch = weakref.ref(model[0].weight)
    array = weakref.ref(model[0].weight._cell.node.bound)
    del run, model
    gc.collect()
    assert watch() is None
    assert array() is None


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_trace_keeps_no_old_state(optimizer: str) -> None:
    """After the first compiled step there is one array for each parameter: old ones are used or gone."""
    layer = nn.Linear(300, 300)
    options = {"lr": 0.1, "momentum": 0.9} if optimizer == "SGD" else {"lr": 0.1}
    update = getattr(optim, optimizer)(layer.parameters(), **options)
    x = graphc.randn(5, 300)
    graphc.sync()
    before = [weakref.ref(p._cell.node.bound) for p in layer.parameters()]

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        update.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        update.step()
        return loss

    step(x)
    for old, parameter in zip(before, layer.parameters(), strict=True):
        assert old() is None or old() is parameter._cell.node.bound


@pytest.mark.parametrize("held", [0, 1, 3])
def test_results_stay_as_they_are_while_somebody_holds_them(held: int) -> None:
    """The memory of a result is used again once it is gone, not before."""
    model = nn.Linear(4, 5)
    compiled = graphc.compile(model)
    kept: list[tuple[np.ndarray, graphc.Tensor, graphc.Tensor, np.ndarray]] = []
    with graphc.no_grad():
        for i in range(8):
            x = np.full((2, 4), float(i), np.float32)
            result = compiled(graphc.from_numpy(x))
            kept.append((x, result, result[1:], result.numpy()))
            del result, kept[: -held or None]
            for x, whole, part, copy in kept:
                expected = model(graphc.from_numpy(x)).numpy()
                np.testing.assert_allclose(whole.numpy(), expected, rtol=1e-6)
                np.testing.assert_allclose(part.numpy(), expected[1:], rtol=1e-6)
                np.testing.assert_allclose(copy, expected, rtol=1e-6)
            x = whole = part = copy = None
    assert compiled.compilations == 1


def test_threads_may_call_one_function_at_once() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    compiled = graphc.compile(model)
    inputs = [np.random.default_rng(i).standard_normal((3, 8)).astype(np.float32) for i in range(4)]
    with graphc.no_grad():
        expected = [compiled(graphc.from_numpy(x)).numpy() for x in inputs]
    wrong: list[int] = []

    def work(number: int) -> None:
        with graphc.no_grad():
            x = graphc.from_numpy(inputs[number])
            results = [compiled(x) for _ in range(200)]
        wrong.extend(number for r in results if not np.array_equal(r.numpy(), expected[number]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
