"""Random fills take place when somebody reads them, with the bits they would have had at once."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import graphc as gc
from graphc.frontend import drawn


@pytest.fixture
def draws(monkeypatch):
    """How many draws have been made, in a list of their shapes."""
    made = []
    whole = drawn.Drawn.array

    def array(self):
        found = whole(self)
        made.append(found.shape)
        return found

    monkeypatch.setattr(drawn.Drawn, "array", array)
    return made


def filled(*shape, seed=3):
    return gc.empty(*shape).uniform_(-1, 1, generator=gc.Generator().manual_seed(seed))


def test_a_fill_waits_until_it_is_read(draws):
    x = filled(3, 4)
    assert draws == []
    first = x.numpy().copy()
    assert draws == [(3, 4)]
    np.testing.assert_array_equal(x.numpy(), first)
    assert draws == [(3, 4)]
    assert (abs(first) <= 1).all()
    assert first.std() > 0.1


def test_a_fill_that_is_overwritten_is_never_made(draws):
    layer = gc.nn.Linear(5, 7)
    with gc.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(gc.ones(parameter.shape))
    layer(gc.ones(2, 5)).sum().backward()
    assert float(layer.weight.sum()) == 35
    assert draws == []


def test_the_order_of_reading_does_not_matter():
    gc.manual_seed(5)
    a, b = gc.empty(9).normal_(), gc.empty(9).normal_()
    late = [t.numpy().copy() for t in (b, a)][::-1]
    gc.manual_seed(5)
    early = [gc.empty(9).normal_().numpy().copy() for _ in range(2)]
    np.testing.assert_array_equal(late, early)
    assert (early[0] != early[1]).all()


def test_who_copies_a_fill_has_a_value_of_its_own(draws):
    x = filled(6)
    y = gc.zeros(6).copy_(x)
    z = copy.deepcopy(x)
    view = x[1:3]
    x += 1
    np.testing.assert_allclose(x.numpy() - 1, y.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    np.testing.assert_array_equal(view.numpy(), x.numpy()[1:3])
    assert set(draws) == {(6,)}


def test_expressions_see_the_same_numbers_as_readers():
    read, used = filled(8), filled(8)
    numbers = read.numpy().copy()
    np.testing.assert_array_equal((used * 2).numpy(), numbers * 2)
    np.testing.assert_array_equal(used.numpy(), numbers)
    np.testing.assert_array_equal(gc.compile(lambda t: t * 2)(filled(8)).numpy(), numbers * 2)


def test_an_index_that_is_a_fill_is_known(draws):
    index = gc.empty(4, dtype=gc.int64).random_(0, 3, generator=gc.Generator().manual_seed(1))
    table = gc.arange(3)
    np.testing.assert_array_equal(table[index].numpy(), index.numpy())
    assert draws == [(4,)]


def test_a_step_trains_parameters_that_nobody_has_read():
    def after(read_first):
        gc.manual_seed(0)
        layer = gc.nn.Linear(4, 3)
        if read_first:
            before = [p.detach().numpy().copy() for p in layer.parameters()]
        optimizer = gc.optim.SGD(layer.parameters(), lr=0.1)

        @gc.compile
        def step(x):
            optimizer.zero_grad()
            loss = (layer(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        step(gc.ones(2, 4))
        found = [p.detach().numpy().copy() for p in layer.parameters()]
        if read_first:
            assert all((a != b).any() for a, b in zip(before, found, strict=True))
        return found

    for early, late in zip(after(True), after(False), strict=True):
        np.testing.assert_array_equal(early, late)
