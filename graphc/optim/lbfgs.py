"""Limited-memory BFGS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphc.frontend.functions.creation import from_numpy
from graphc.frontend.modes import MODE, enable_grad, no_grad
from graphc.frontend.tensor import Tensor
from graphc.optim.checks import check_number
from graphc.optim.line_search import Point, Vector, strong_wolfe
from graphc.optim.optimizer import Optimizer, State

CURVED = 1e-10  # least curvature along a step that is worth remembering


class LBFGS(Optimizer):
    """L-BFGS (Liu and Nocedal, 1989), PyTorch's form: `step(closure)` evaluates the closure several times.

    max_iter       iterations of one step
    max_eval       evaluations of the closure in one step (1.25 * max_iter if None)
    tolerance_grad, tolerance_change   a step ends when the largest gradient entry, or the change of the
                   parameters or of the loss, is no more than this
    history_size   remembered pairs of changes
    line_search_fn None (fixed step `lr`) or "strong_wolfe"

    All parameters are one group. Each evaluation of the closure is one compiled program; which of them
    are needed is decided between them, so a whole step cannot be compiled as one: RuntimeError there.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        check_number("learning rate", lr)
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Minimise `closure`, which clears the gradients, computes the loss, calls backward and returns the
        loss; returns the loss of its first evaluation. TypeError without a closure."""
        if closure is None:
            raise TypeError("LBFGS.step() missing 1 required positional argument: 'closure'")
        if MODE.trace is not None:
            raise RuntimeError(
                "LBFGS.step decides by the values of the loss and cannot be part of a compiled step; "
                "compile the closure instead"
            )
        return _Step(self, closure).run()


class _Step:
    """One call of `LBFGS.step`: vectors are flat NumPy arrays over all parameters."""

    def __init__(self, optimizer: LBFGS, closure: Callable[[], Any]) -> None:
        self.group = optimizer.param_groups[0]
        self.params: list[Tensor] = self.group["params"]
        self.state: State = optimizer.state[self.params[0]]
        self.state.setdefault("func_evals", 0)
        self.state.setdefault("n_iter", 0)
        self.closure = closure
        self.evaluations = 0

    def run(self) -> Any:
        first = self._call()
        value, gradient = float(first), self._gradient()
        for iteration in range(1, self.group["max_iter"] + 1):
            if self._flat(gradient):
                break
            self.state["n_iter"] += 1
            direction = self._direction(gradient)
            self._remember(d=direction, prev_flat_grad=gradient.copy())
            self.state["prev_loss"] = previous = value
            length = self._first_length(gradient)
            slope = float(gradient @ direction)
            self.state["t"] = length
            if slope > -self.group["tolerance_change"]:
                break
            last = iteration == self.group["max_iter"]
            value, gradient = self._move(direction, Point(0.0, value, gradient, slope), length, last)
            moved = self.state["t"] * np.abs(direction).max()
            if self._finished(last, moved, abs(value - previous)):
                break
        return first

    def _finished(self, last: bool, moved: float, change: float) -> bool:
        tolerance = self.group["tolerance_change"]
        return last or self.evaluations >= self.group["max_eval"] or moved <= tolerance or change < tolerance

    def _flat(self, gradient: Vector) -> bool:
        return bool(np.abs(gradient).max() <= self.group["tolerance_grad"])

    def _first_length(self, gradient: Vector) -> float:
        lr = float(self.group["lr"])
        return min(1.0, 1.0 / float(np.abs(gradient).sum())) * lr if self.state["n_iter"] == 1 else lr

    # ---------------------------------------------------------------- direction

    def _direction(self, gradient: Vector) -> Vector:
        """Minus the gradient times the remembered inverse Hessian (Nocedal and Wright, algorithm 7.4)."""
        state = self.state
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return -gradient
        self._learn(gradient)
        changes = [np.asarray(v.numpy()) for v in state["old_dirs"]]
        steps = [np.asarray(v.numpy()) for v in state["old_stps"]]
        pairs = list(zip(changes, steps, state["ro"], strict=True))
        direction = -gradient
        parts = []
        for change, step, ro in reversed(pairs):
            part = float(step @ direction) * ro
            parts.append(part)
            direction -= _like(part, change) * change
        direction *= _like(state["H_diag"], direction)
        for (change, step, ro), part in zip(pairs, reversed(parts), strict=True):
            direction += _like(part - float(change @ direction) * ro, step) * step
        return direction

    def _learn(self, gradient: Vector) -> None:
        """Remember the last step and the change of the gradient along it, if the objective curves there."""
        state = self.state
        change = gradient - state["prev_flat_grad"].numpy()
        step = state["d"].numpy() * _like(state["t"], gradient)
        curvature = float(change @ step)
        if curvature <= CURVED:
            return
        if len(state["old_dirs"]) == self.group["history_size"]:
            for name in ("old_dirs", "old_stps", "ro"):
                state[name].pop(0)
        state["old_dirs"].append(from_numpy(change))
        state["old_stps"].append(from_numpy(step))
        state["ro"].append(1.0 / curvature)
        state["H_diag"] = curvature / float(change @ change)

    def _remember(self, **vectors: Vector) -> None:
        self.state.update((name, from_numpy(vector)) for name, vector in vectors.items())

    # --------------------------------------------------------------------- moves

    def _move(self, direction: Vector, start: Point, length: float, last: bool) -> tuple[float, Vector]:
        """Step along `direction`; the loss and its gradient there (those of `start` if nobody needs them)."""
        search = self.group["line_search_fn"]
        base = self._flat_values()
        if search is None:
            self._set(base + _like(length, direction) * direction)
            if last:
                return start.value, start.gradient
            return float(self._call()), self._gradient()
        if search != "strong_wolfe":
            raise RuntimeError(f"only 'strong_wolfe' is supported as line_search_fn, got {search!r}")

        def objective(t: float) -> tuple[float, Vector]:
            self._set(base + _like(t, direction) * direction)
            return float(self._call()), self._gradient()

        point, _ = strong_wolfe(objective, direction, start, length)
        self._set(base + _like(point.t, direction) * direction)
        self.state["t"] = point.t
        return point.value, point.gradient

    def _call(self) -> Any:
        self.evaluations += 1
        self.state["func_evals"] += 1
        with enable_grad():
            return self.closure()

    def _gradient(self) -> Vector:
        missing = (np.zeros(p.numel(), p.dtype.numpy) for p in self.params)
        grads = zip(self.params, missing, strict=True)
        return np.concatenate([z if p.grad is None else p.grad.detach().numpy().ravel() for p, z in grads])

    def _flat_values(self) -> Vector:
        return np.concatenate([p.detach().numpy().ravel() for p in self.params])

    def _set(self, values: Vector) -> None:
        at = 0
        with no_grad():
            for p in self.params:
                part = values[at : at + p.numel()].reshape(tuple(p.shape))
                p.copy_(from_numpy(part.astype(p.dtype.numpy)))
                at += p.numel()


def _like(number: float, vector: Vector) -> np.floating:
    """`number` in the precision of `vector`, so that products keep its dtype."""
    return vector.dtype.type(number)
