"""The two-layer network of the tutorials (1000-100-10), written three times.

1. Gradients by hand, with mm, clamp and t.
2. Variables: the graph is differentiated by backward(), the update goes through .data.
3. A Module whose forward and backward are ordinary methods.

All three start from the same weights, so their loss curves must be equal.

    python examples/two_layer.py --compile
"""

from __future__ import annotations

import argparse
import time

from tqdm import tqdm

import graphc
from graphc import nn
from graphc.autograd import Variable

BATCH, INPUTS, HIDDEN, OUTPUTS = 100, 1000, 100, 10


def by_hand(x, y, w1, w2, lr):
    w1, w2 = w1.clone(), w2.clone()

    def step(x, y):
        hidden = x.mm(w1)
        active = hidden.clamp(min=0)
        prediction = active.mm(w2)
        loss = (prediction - y).pow(2).sum()

        grad_prediction = 2 * (prediction - y)
        grad_w2 = active.t().mm(grad_prediction)
        grad_hidden = grad_prediction.mm(w2.t())
        grad_hidden = graphc.where(hidden > 0, grad_hidden, graphc.zeros_like(grad_hidden))
        grad_w1 = x.t().mm(grad_hidden)

        w1.sub_(lr * grad_w1)
        w2.sub_(lr * grad_w2)
        return loss

    return step


def with_variables(x, y, w1, w2, lr):
    w1 = Variable(w1.clone(), requires_grad=True)
    w2 = Variable(w2.clone(), requires_grad=True)
    w1.grad, w2.grad = graphc.zeros_like(w1), graphc.zeros_like(w2)

    def step(x, y):
        prediction = x.mm(w1).clamp(min=0).mm(w2)
        loss = (prediction - y).pow(2).sum()
        loss.backward()
        w1.data -= lr * w1.grad.data
        w2.data -= lr * w2.grad.data
        w1.grad.data.zero_()
        w2.grad.data.zero_()
        return loss

    return step


class TwoLayer(nn.Module):
    """A module that knows its own gradients: `backward` is a plain method."""

    def __init__(self, w1, w2) -> None:
        super().__init__()
        self.w1 = nn.Parameter(w1.clone())
        self.w2 = nn.Parameter(w2.clone())

    def forward(self, x):
        self.hidden = x.mm(self.w1)
        return self.hidden.clamp(min=0).mm(self.w2)

    def backward(self, x, grad_prediction):
        active = self.hidden.clamp(min=0)
        grad_hidden = grad_prediction.mm(self.w2.t()) * (self.hidden > 0)
        return x.t().mm(grad_hidden), active.t().mm(grad_prediction)


def with_module(x, y, w1, w2, lr):
    model = TwoLayer(w1, w2)

    def step(x, y):
        with graphc.no_grad():
            prediction = model(x)
            loss = (prediction - y).pow(2).sum()
            grad_w1, grad_w2 = model.backward(x, 2 * (prediction - y))
            model.w1 -= lr * grad_w1
            model.w2 -= lr * grad_w2
        return loss

    return step


FORMS = {"by hand": by_hand, "variables": with_variables, "module": with_module}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile the step with graphc.compile")
    args = parser.parse_args()

    graphc.manual_seed(args.seed)
    x, y = graphc.randn(BATCH, INPUTS), graphc.randn(BATCH, OUTPUTS)
    w1, w2 = graphc.randn(INPUTS, HIDDEN), graphc.randn(HIDDEN, OUTPUTS)

    curves: dict[str, list[float]] = {}
    begin = time.perf_counter()
    progress = tqdm(total=len(FORMS) * args.epochs, desc="two_layer", unit="epoch")
    for name, form in FORMS.items():
        step = form(x, y, w1, w2, args.lr)
        step = graphc.compile(step) if args.compile else step
        curves[name] = []
        for _ in range(args.epochs):
            curves[name].append(step(x, y).item())
            progress.update()
            progress.set_postfix(form=name, loss=f"{curves[name][-1]:.1f}")
    progress.close()
    seconds = time.perf_counter() - begin

    print("epoch  " + "  ".join(f"{name:>14}" for name in curves))
    for epoch, row in enumerate(zip(*curves.values(), strict=True)):
        print(f"{epoch:5}  " + "  ".join(f"{loss:14.2f}" for loss in row))
    reference = curves["by hand"]
    spread = max(
        abs(a - b) / abs(a) for curve in curves.values() for a, b in zip(reference, curve, strict=True)
    )
    print(
        f"final loss {reference[-1]:.2f}, largest relative difference between the three {spread:.1e}, "
        f"{1e3 * seconds / (len(FORMS) * args.epochs):.2f} ms per epoch with compilation"
    )
    if spread > 1e-5:
        raise SystemExit("the three forms disagree")


if __name__ == "__main__":
    main()
