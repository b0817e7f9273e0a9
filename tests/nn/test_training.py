"""A small CNN trained by one compiled step: against PyTorch, through checkpoints, and with bad labels."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

from .against_torch import copy_state  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 1, 8, 8)).astype(np.float32)
Y = RNG.integers(0, 10, 32)


def network(nn, dropout=0.0):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout),
        nn.Flatten(), nn.Linear(8 * 16, 10),
    )  # fmt: skip


def stepper(T, model, opt):
    loss_of = T.nn.CrossEntropyLoss()

    def step(x, y):
        opt.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return step


@pytest.mark.parametrize("compiled", [False, True])
def test_losses_equal_torchs(compiled):
    torch.manual_seed(0)
    theirs, ours = network(torch.nn), network(graphc.nn)
    copy_state(ours, theirs)
    losses = []
    for T, model in ((graphc, ours), (torch, theirs)):
        opt = T.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)
        schedule = T.optim.lr_scheduler.StepLR(opt, 4, 0.5)
        step = stepper(T, model, opt)
        if compiled and T is graphc:
            step = graphc.compile(step)
        x, y = T.from_numpy(X), T.from_numpy(Y)
        losses.append([])
        for _ in range(10):
            losses[-1].append(step(x, y).item())
            schedule.step()
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_compiled_step_resumes_and_survives_bad_labels():
    model = network(graphc.nn, dropout=0.25)
    opt = graphc.optim.AdamW(model.parameters(), lr=1e-2)
    step = graphc.compile(stepper(graphc, model, opt))
    x, y = graphc.from_numpy(X), graphc.from_numpy(Y)
    for _ in range(3):
        step(x, y)
    saved = copy.deepcopy((model.state_dict(), opt.state_dict()))
    random = graphc.get_rng_state()
    wanted = [step(x, y).item() for _ in range(3)]
    model.load_state_dict(saved[0])
    opt.load_state_dict(saved[1])
    graphc.set_rng_state(random)
    with pytest.raises(IndexError, match="cross_entropy: Target is out of bounds"):
        step(x, y + 10)
    graphc.set_rng_state(random)
    assert [step(x, y).item() for _ in range(3)] == wanted
    assert step.compilations == 1
    assert model[1].num_batches_tracked.item() == 6
