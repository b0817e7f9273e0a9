"""SparseAdam on embedding tables, against PyTorch with sparse gradients."""

from __future__ import annotations

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")
INDICES = [[1, 4, 1], [2, 2, 7], [4, 0, 6], [1, 2, 3], [9, 9, 9]]


def run(T, options, compiled=False, seen=None):
    rng = np.random.default_rng(0)
    layer = T.nn.Embedding(10, 3, sparse=True, padding_idx=6)
    with T.no_grad():
        layer.weight.copy_(T.from_numpy(rng.standard_normal((10, 3)).astype(np.float32)))
    optimizer = T.optim.SparseAdam(layer.parameters(), **options)

    def step(words, target):
        optimizer.zero_grad()
        loss = ((layer(words) - target) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    step = T.compile(step) if compiled else step
    losses = []
    for words in INDICES * 2:
        target = T.from_numpy(rng.standard_normal((3, 3)).astype(np.float32))
        losses.append(step(T.tensor(words), target).item())
    return losses, layer.weight.detach().numpy(), optimizer.state_dict()["state"][0]


@pytest.mark.parametrize(
    "options", [{}, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}, {"maximize": True}], ids=str
)
@pytest.mark.parametrize("compiled", [False, True])
def test_equals_torch(options, compiled):
    losses, weight, state = run(graphc, options, compiled)
    expected = run(torch, options)
    np.testing.assert_allclose(losses, expected[0], rtol=1e-5)
    np.testing.assert_allclose(weight, expected[1], rtol=1e-5, atol=1e-6)
    for name in ("exp_avg", "exp_avg_sq"):
        np.testing.assert_allclose(state[name].numpy(), expected[2][name].numpy(), rtol=1e-4, atol=1e-7)
    assert int(state["step"]) == int(expected[2]["step"]) == 10
    assert set(state) == set(expected[2])


def test_unused_rows_stay_while_adam_moves_them():
    """A row once used keeps moving with Adam; here it rests until it is used again."""
    table = graphc.ones(4, 2, requires_grad=True)
    optimizer = graphc.optim.SparseAdam([table], lr=0.1)
    for row in (0, 1):
        optimizer.zero_grad()
        table[row].sum().backward()
        before = table[0].tolist()
        optimizer.step()
    assert table[0].tolist() == before
    assert table[1].tolist() != [1, 1]
    assert table[2:].tolist() == [[1, 1], [1, 1]]


def test_a_vector_is_a_table_of_single_elements():
    values = graphc.ones(3, requires_grad=True)
    optimizer = graphc.optim.SparseAdam([values], lr=0.1)
    (values[1] * 2).backward()
    optimizer.step()
    np.testing.assert_allclose(values.tolist(), [1, 0.9, 1], rtol=1e-5)


def test_mistakes():
    p = [graphc.ones(2, requires_grad=True)]
    for bad in ({"lr": 0.0}, {"eps": 0.0}, {"betas": (1.0, 0.9)}):
        with pytest.raises(ValueError, match="Invalid"):
            graphc.optim.SparseAdam(p, **bad)
