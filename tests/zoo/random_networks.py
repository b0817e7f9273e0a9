"""Random networks and ways to train them, made from a seed; `T` is torch or graphc.

A network is a plan, a list of `Part`s, from which both libraries build their modules: the plan is grown with
PyTorch's modules on an example, whose shape decides what may come next.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Namespace = Any
Module = Any


@dataclass(frozen=True)
class Part:
    """A layer: a class of `nn` (or of `OWN`), its arguments, and plans of what is inside."""

    name: str
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    inside: tuple[tuple[Part, ...], ...] = ()


def build(T: Namespace, plan: Sequence[Part]) -> Module:
    """The modules of a plan, one after the other."""
    return T.nn.Sequential(*[_build_part(T, part) for part in plan])


def _build_part(T: Namespace, part: Part) -> Module:
    inside = [build(T, plan) for plan in part.inside]
    if part.name in OWN:
        return _own(T, part.name)(*inside, *part.args, **part.options)
    return getattr(T.nn, part.name)(*inside, *part.args, **part.options)


def _own(T: Namespace, name: str) -> Callable[..., Module]:
    """A module that applies one of `OWN` to its parts and its input."""

    class Own(T.nn.Module):
        def __init__(self, *given: Any) -> None:
            super().__init__()
            self.parts = T.nn.ModuleList([g for g in given if isinstance(g, T.nn.Module)])
            self.args = [g for g in given if not isinstance(g, T.nn.Module)]

        def forward(self, x: Any) -> Any:
            return OWN[name](T, x, *self.parts, *self.args)

    return Own


def _gated(T: Namespace, x: Any, body: Module) -> Any:
    """Squeeze and excitation: every channel times a number of its own."""
    dims = tuple(range(2, x.dim()))
    weights = T.sigmoid(body(x.mean(dim=dims)))
    return x * weights.reshape(*weights.shape, *([1] * len(dims)))


def _ramp(T: Namespace, x: Any) -> Any:
    """Added to values, it orders those that are equal but for rounding."""
    return T.arange(x.shape[-1], dtype=x.dtype) * 0.013


OWN: dict[str, Callable[..., Any]] = {
    "Residual": lambda T, x, body: x + body(x),
    "Scaled": lambda T, x, body: x * T.sigmoid(body(x)),
    "Beside": lambda T, x, a, b: T.cat([a(x), b(x)], dim=1),
    "Gated": _gated,
    "Recurrent": lambda T, x, body: body(x)[0],
    "Final": lambda T, x, body: body(x)[1][-1],
    "SelfAttention": lambda T, x, body: body(x, x, x, need_weights=False)[0],
    "Steps": lambda T, x: x.flatten(2).transpose(1, 2),
    "Channels": lambda T, x: x.transpose(1, 2),
    "Last": lambda T, x: x[:, -1],
    "Mean": lambda T, x, dim: x.mean(dim=dim),
    "Most": lambda T, x, dim: x.amax(dim=dim),
    "Normalise": lambda T, x: T.nn.functional.normalize(x, dim=-1) * 2.0,
    "Interpolate": lambda T, x, mode: T.nn.functional.interpolate(x, scale_factor=2, mode=mode),
    "Rolled": lambda T, x, dim: T.roll(x, 1, dims=dim) - x.flip(dim) * 0.5,
    "Slices": lambda T, x, dim: x.narrow(dim, 0, x.shape[dim] - 1) + x.narrow(dim, 1, x.shape[dim] - 1),
    "Chunks": lambda T, x, dim: (lambda a, b: a * T.tanh(b))(*x.chunk(2, dim=dim)),
    "Outer": lambda T, x: T.einsum("ni,nj->nij", x, T.softmax(x, dim=1)).flatten(1),
    "Pairs": lambda T, x: T.matmul(x, x.transpose(-1, -2)) / x.shape[-1],
    "Cumulative": lambda T, x: T.cumsum(x, dim=1) / x.shape[1],
    "Sorted": lambda T, x: T.sort(x + _ramp(T, x), dim=-1)[0],
    "Wheres": lambda T, x: T.where(x > 0, x, x.exp() - 1).clamp(-2.0, 2.0),
    "Picked": lambda T, x: x.gather(-1, T.argsort(x + _ramp(T, x), dim=-1)) + (x + _ramp(T, x)).topk(1)[0],
    "Ratio": lambda T, x: x / (1 + x.pow(2).sum(dim=-1, keepdim=True)).sqrt(),
    "Deviation": lambda T, x: (x - x.mean(dim=0, keepdim=True)) / (x.std(dim=0, keepdim=True) + 0.1),
    "Logs": lambda T, x: T.logsumexp(x.unsqueeze(-1) * T.tensor([1.0, -1.0], dtype=x.dtype), dim=-1),
}

ACTIVATIONS = (
    Part("ReLU"), Part("ReLU", (True,)), Part("GELU"), Part("GELU", (), {"approximate": "tanh"}),
    Part("SiLU"), Part("Mish"), Part("Hardswish"), Part("Hardsigmoid"), Part("ELU", (0.7,)),
    Part("SELU"), Part("CELU"),
    Part("LeakyReLU", (0.2,)), Part("PReLU"), Part("Softplus", (2.0, 3.0)), Part("Tanh"), Part("Sigmoid"),
    Part("LogSigmoid"), Part("Softsign"), Part("Tanhshrink"), Part("Hardtanh", (-0.7, 0.9)), Part("ReLU6"),
    Part("Softshrink", (0.2,)), Part("Hardshrink", (0.2,)), Part("Threshold", (0.1, 0.0)), Part("Wheres"),
    Part("Dropout", (0.0,)), Part("Identity"),
)  # fmt: skip
LARGEST = 40_000  # elements of an example


class Grower:
    """Grows a plan on an example `x` of PyTorch."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        shape = self.pick.choice(
            ((3, 3, 17, 16), (3, 6, 9, 10), (3, 1, 12, 12), (3, 5, 11), (3, 7, 8), (3, 13))
        )
        self.shape = shape
        self.x = torch.randn(shape, dtype=torch.float64)

    def plan(self, steps: int, depth: int = 1) -> tuple[Part, ...]:
        """Parts that follow one another; those that PyTorch refuses on this example are left out."""
        found: list[Part] = []
        for _ in range(steps):
            part = self.part(depth)
            try:
                with torch.no_grad():
                    y = build(torch, [part]).double()(self.x)
            except (RuntimeError, ValueError, IndexError, AssertionError, TypeError):
                continue
            if y.dim() in (2, 3, 4) and 0 < y.numel() <= LARGEST and y.isfinite().all():
                found.append(part)
                self.x = y
        return tuple(found)

    def inner(self, steps: int) -> tuple[Part, ...]:
        """A plan for the inside of a part, from the same example."""
        before = self.x
        plan = self.plan(steps, 0)
        self.x = before
        return plan

    def part(self, depth: int) -> Part:
        makers = {2: (self.of_rows,), 3: (self.of_steps, self.of_lines), 4: (self.of_images,)}[self.x.dim()]
        roll = self.pick.random()
        if roll < 0.25:
            return self.pick.choice(ACTIVATIONS)
        if depth and roll < 0.45:
            return self.nested()
        if roll < 0.55:
            return self.anything()
        return self.pick.choice(makers)()

    def nested(self) -> Part:
        kind = self.pick.choice(("Residual", "Scaled", "Beside", "Gated"))
        if kind == "Beside":
            return Part(kind, inside=(self.inner(2), self.inner(2)))
        if kind == "Gated":
            channels = self.x.shape[1]
            return Part(
                kind, inside=((Part("Linear", (channels, 4)), Part("ReLU"), Part("Linear", (4, channels))),)
            )
        return Part(kind, inside=(self.inner(3),))

    def anything(self) -> Part:
        """What works for any number of dims."""
        dim = self.pick.randrange(1, self.x.dim())
        trailing = list(self.x.shape[-self.pick.randint(1, self.x.dim() - 1) :])
        return self.pick.choice(
            (
                Part("Normalise"), Part("Rolled", (dim,)), Part("Slices", (dim,)), Part("Chunks", (dim,)),
                Part("Cumulative"), Part("Sorted"), Part("Ratio"), Part("Picked"), Part("Softmax", (dim,)),
                Part("LogSoftmax", (dim,)), Part("LayerNorm", (trailing,)), Part("RMSNorm", (trailing,)),
                Part("GLU", (dim,)), Part("Most", (dim,)), Part("Mean", (dim,)),
                Part("Deviation"), Part("Logs"),
            )
        )  # fmt: skip

    def of_rows(self) -> Part:
        n = self.x.shape[1]
        norm = {"affine": self.pick.random() < 0.8, "momentum": self.pick.choice((0.1, None))}
        return self.pick.choice(
            (
                Part("Linear", (n, self.pick.choice((1, 8, 17, 32)))),
                Part("Linear", (n, self.pick.choice((5, 64))), {"bias": False}),
                Part("BatchNorm1d", (n,), norm),
                Part("Outer") if n < 20 else Part("Linear", (n, 16)),
                Part("Unflatten", (1, (n // 2, 2))),
                Part("GroupNorm", (self.pick.choice((1, 2)), n)),
            )
        )  # fmt: skip

    def of_steps(self) -> Part:
        """The last dim is of features, the one before of time."""
        n, pick = self.x.shape[2], self.pick
        heads = pick.choice([h for h in (1, 2, 4) if n % h == 0])
        cell = pick.choice(("LSTM", "GRU", "RNN"))
        first = {"batch_first": True}
        recurrent = first | {"bidirectional": pick.random() < 0.4, "num_layers": pick.choice((1, 2))}
        encoder = first | {"norm_first": pick.random() < 0.5, "activation": pick.choice(("relu", "gelu"))}
        return pick.choice(
            (
                Part("Linear", (n, pick.choice((1, 8, 24)))),
                Part("Recurrent", inside=((Part(cell, (n, pick.choice((4, 9))), recurrent),),)),
                Part("SelfAttention", inside=((Part("MultiheadAttention", (n, heads), first),),)),
                Part("TransformerEncoderLayer", (n, heads, 12, 0.0), encoder),
                Part("Channels"), Part("Last"), Part("Mean", (1,)), Part("Pairs"), Part("Flatten"),
            )
        )  # fmt: skip

    def of_lines(self) -> Part:
        c, pick = self.x.shape[1], self.pick
        k = pick.choice((1, 2, 3, 5))
        conv = {
            "stride": pick.choice((1, 1, 2)),
            "padding": pick.choice((0, k // 2)),
            "dilation": pick.choice((1, 1, 2)),
        }
        return pick.choice(
            (
                Part("Conv1d", (c, pick.choice((4, 16)), k), conv),
                Part("ConvTranspose1d", (c, 6, k), {"stride": 2}),
                Part("BatchNorm1d", (c,)), Part("InstanceNorm1d", (c,)), Part("MaxPool1d", (2,)),
                Part("AvgPool1d", (3, 1, 1)), Part("AdaptiveAvgPool1d", (4,)),
                Part("Interpolate", ("linear",)), Part("ReflectionPad1d", (1,)),
                Part("Flatten"), Part("Channels"),
            )
        )  # fmt: skip

    def of_images(self) -> Part:
        c, pick = self.x.shape[1], self.pick
        k, groups = pick.choice((1, 2, 3, 3, 5)), pick.choice([g for g in (1, 1, 2, c) if c % g == 0])
        conv = {"stride": pick.choice((1, 1, 2)), "padding": k // 2, "dilation": pick.choice((1, 1, 1, 2))}
        conv |= {"groups": groups, "bias": pick.random() < 0.5}
        padded = {"padding_mode": pick.choice(("zeros", "zeros", "circular", "reflect", "replicate"))}
        mode = pick.choice(("nearest", "bilinear", "bicubic"))
        return pick.choice(
            (
                *(Part("Conv2d", (c, groups * pick.choice((1, 4, 16)), k), conv | padded),) * 4,
                Part("ConvTranspose2d", (c, groups * 3, k), {**conv, "output_padding": conv["stride"] - 1}),
                *(Part("BatchNorm2d", (c,)),) * 2, Part("GroupNorm", (groups, c)),
                Part("InstanceNorm2d", (c,), {"affine": True}), Part("MaxPool2d", (3, 2, 1)),
                Part("MaxPool2d", (2,)), Part("MaxPool2d", (2,), {"ceil_mode": True}),
                Part("AvgPool2d", (3, 2, 1), {"count_include_pad": False}), Part("LPPool2d", (2, 2)),
                Part("AdaptiveAvgPool2d", ((3, 2),)), Part("AdaptiveMaxPool2d", (2,)),
                Part("Interpolate", (mode,)), Part("PixelShuffle", (2,)), Part("PixelUnshuffle", (2,)),
                Part("ZeroPad2d", ((1, 0, 2, 1),)), Part("ReflectionPad2d", (1,)),
                Part("ChannelShuffle", (groups,)), Part("LocalResponseNorm", (2,)), Part("Unfold", (2,)),
                Part("Steps"), Part("Flatten"),
            )
        )  # fmt: skip


OPTIMIZERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    ("SGD", {"lr": 0.02, "momentum": 0.8, "dampening": 0.1}),
    ("Adam", {"lr": 0.01, "eps": 1e-4}),
    ("Adam", {"lr": 0.01, "eps": 1e-4, "amsgrad": True, "weight_decay": 0.01}),
    ("AdamW", {"lr": 0.01, "eps": 1e-4}),
    ("RMSprop", {"lr": 0.005, "eps": 1e-3, "momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr": 0.02, "eps": 1e-3}),
    ("NAdam", {"lr": 0.01, "eps": 1e-4}),
    ("RAdam", {"lr": 0.01, "eps": 1e-4}),
    ("Adamax", {"lr": 0.01, "eps": 1e-4}),
    ("Adadelta", {"lr": 0.5, "eps": 1e-3}),
)
LOSSES = ("cross_entropy", "smooth", "mse", "huber", "l1", "bce", "nll", "kl", "margin")


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained; `batch(step)` gives arrays of input and target."""

    seed: int
    plan: tuple[Part, ...]
    shape: tuple[int, ...]
    outputs: int
    loss: str
    optimizer: tuple[str, dict[str, Any]]
    clip: float | None
    accumulate: int
    decay: bool
    frozen: bool

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, step))
        n = 5 if step == 2 else self.shape[0]  # one batch of another size
        x = rng.standard_normal((n, *self.shape[1:]))
        labels = self.loss in ("cross_entropy", "smooth", "nll", "margin")
        return x, rng.integers(0, self.outputs, n) if labels else rng.random((n, self.outputs))


def random_recipe(seed: int, steps: int = 9) -> Recipe:
    """A network of about `steps` parts that ends in rows of class scores."""
    grower = Grower(seed)
    pick = grower.pick
    plan = list(grower.plan(steps))
    if grower.x.dim() > 2:
        plan.append(Part("Flatten"))
    outputs = pick.choice((2, 5))
    plan.append(Part("Linear", (grower.x.flatten(1).shape[1], outputs)))
    return Recipe(
        seed, tuple(plan), grower.shape, outputs, pick.choice(LOSSES), pick.choice(OPTIMIZERS),
        pick.choice((None, None, 0.5)), pick.choice((1, 1, 2)), pick.random() < 0.3, pick.random() < 0.2,
    )  # fmt: skip


def loss_of(T: Namespace, name: str, scores: Any, target: Any) -> Any:
    F = T.nn.functional
    if name == "kl":
        return F.kl_div(F.log_softmax(scores, dim=1), F.softmax(target, dim=1), reduction="batchmean")
    if name == "nll":
        return F.nll_loss(F.log_softmax(scores, dim=1), target)
    if name == "smooth":
        return F.cross_entropy(scores, target, label_smoothing=0.1)
    found = {
        "cross_entropy": F.cross_entropy, "mse": F.mse_loss, "huber": F.huber_loss, "l1": F.smooth_l1_loss,
        "bce": F.binary_cross_entropy_with_logits, "margin": F.multi_margin_loss,
    }  # fmt: skip
    return found[name](scores, target)


def train(
    T: Namespace, recipe: Recipe, state: dict[str, np.ndarray], how: str = "plain", steps: int = 3
) -> dict[str, np.ndarray]:
    """Losses, parameters, buffers and a prediction after a few steps in float64.

    how    "plain" loops, the "model" compiled, or the whole "step"
    """
    model = build(T, recipe.plan).double()
    model.load_state_dict({k: T.tensor(v) for k, v in state.items()})
    parameters = list(model.parameters())
    if recipe.frozen and len(parameters) > 2:
        parameters[0].requires_grad_(False)
        parameters = parameters[1:]
    name, options = recipe.optimizer
    optimizer = getattr(T.optim, name)(parameters, **options)
    scheduler = T.optim.lr_scheduler.ExponentialLR(optimizer, 0.8) if recipe.decay else None
    called = T.compile(model) if how == "model" else model

    def step(*batches: Any) -> Any:
        optimizer.zero_grad()
        total = 0.0
        for x, y in zip(batches[::2], batches[1::2], strict=True):
            loss = loss_of(T, recipe.loss, called(x), y) / recipe.accumulate
            loss.backward()
            total = total + loss.detach()
        if recipe.clip is not None:
            T.nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        return total

    run = T.compile(step) if how == "step" else step
    found: dict[str, np.ndarray] = {}
    for i in range(steps):
        arrays = [a for j in range(recipe.accumulate) for a in recipe.batch(i * recipe.accumulate + j)]
        found[f"loss {i}"] = run(*[T.from_numpy(a) for a in arrays]).numpy()
        if scheduler is not None:
            scheduler.step()
    model.eval()
    with T.no_grad():
        found["prediction"] = called(T.from_numpy(recipe.batch(99)[0])).numpy()
    return found | {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
