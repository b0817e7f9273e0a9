"""Optimizer: parameter groups, state, and the frame of a step.

A subclass says how one parameter changes (`_update`), as arithmetic on nodes; so a step joins the
program of the backward pass, lazily as well as compiled, and each parameter is updated in one pass over
memory. Numbers in the groups are read through `Hyper`: they enter the program as inputs, so that a new
learning rate compiles nothing.
"""

from __future__ import annotations

import functools
import itertools
import operator
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, ClassVar, cast

from graphc.frontend import sites
from graphc.frontend.cell import Steps
from graphc.frontend.errors import describe
from graphc.frontend.evaluation import lazy
from graphc.frontend.functions.creation import zeros
from graphc.frontend.leaves import zero_grads
from graphc.frontend.modes import MODE, enable_grad, set_grad_enabled
from graphc.frontend.steps import joint, known_step
from graphc.frontend.tensor import Tensor, inplace, needs_grad, operand, result
from graphc.frontend.tracing import trace
from graphc.ir.node import Node
from graphc.ir.types import float32
from graphc.nn import hooks
from graphc.nn.arith import Num, scalar
from graphc.nn.hooks import HookTable, RemovableHandle
from graphc.optim.hyper import Hyper
from graphc.optim.state import HOOK_TABLES, Group, State, StateDict
from graphc.optim.update import Update


class _Required:
    """The default of an option that every group must give."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def _with_hooks(step: Callable) -> Callable:
    """`step` between its hooks, ending with one program that computes everything pending."""

    @functools.wraps(step)
    def wrapper(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self._stepping:  # super().step() inside a step: the outer call has the hooks
            return step(self, *args, **kwargs)
        plain = not args and not kwargs and MODE.trace is None and self._is_plain()
        if plain and (joint.step(self) or known_step.step(self)):
            return None
        self._stepping = True
        try:
            for hook in self._optimizer_step_pre_hooks.values():
                changed = hook(self, args, kwargs)
                if changed is not None:
                    if not (isinstance(changed, tuple) and len(changed) == 2):
                        raise RuntimeError(
                            "step pre-hook must return None or a tuple of (new_args, new_kwargs), "
                            f"but got {changed}."
                        )
                    args, kwargs = changed
            Steps.count += 1
            result = step(self, *args, **kwargs)
            for post in self._optimizer_step_post_hooks.values():
                post(self, args, kwargs)
            lazy.sync()
            return result
        finally:
            self._stepping = False

    wrapper.hooked = True  # type: ignore[attr-defined]
    return wrapper


class Optimizer(StateDict):
    """Base class of all optimizers, with PyTorch's interface.

    params: parameters, (name, parameter) pairs, or dicts with a "params" key and options of their own.
    defaults: the options a group does not give.
    """

    _library: ClassVar[bool] = True  # the class is this package's, and has no step of its own

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._forget()
        for table in HOOK_TABLES:
            setattr(self, table, HookTable())
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            hint = " (call it: model.parameters())" if callable(params) else ""
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                f"but got {type(params).__name__}{hint}"
            )
        self.state: defaultdict[Any, State] = defaultdict(dict)
        self.param_groups: list[Group] = []
        groups = list(params)
        if not groups:
            raise ValueError(
                "optimizer got an empty parameter list: layers in a plain list or dict are no parts of a "
                "module (use nn.ModuleList, nn.ModuleDict), and model.parameters() can be iterated over once"
            )
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        step = cls.__dict__.get("step")
        cls._library = cls._library and step is None and cls.__module__.startswith(__package__)
        if callable(step) and not hasattr(step, "hooked"):
            cls.step = _with_hooks(step)  # type: ignore[method-assign]

    def _forget(self) -> None:
        self._stepping = False
        self._updates: dict[tuple, Update] = {}
        self._known: dict[int, tuple[Group, tuple]] = {}  # the options of groups, and what they follow from

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            options = [f"    {key}: {group[key]}\n" for key in sorted(group) if key != "params"]
            text += f"\nParameter Group {i}\n" + "".join(options)
        return text + ")"

    # ------------------------------------------------------------------ stepping

    @_with_hooks
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure` returned, if given."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            with set_grad_enabled(bool(group.get("differentiable"))), sites.Pinned():
                self._step_group(index, group)
        return loss

    def _is_plain(self) -> bool:
        """Whether a step runs no Python code but this library's, and leaves no history."""
        if self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks or not self._library:
            return False
        return True not in [group.get("differentiable") for group in self.param_groups]

    def _step_group(self, index: int, group: Group) -> None:
        live = [p for p in group["params"] if p.grad is not None]
        self._begin(group, live)
        counts = self._advance(live)
        trace.guard(lambda: self._structure(index))
        hyper, options = Hyper(self, index), self._known_options(index)
        for p in live:
            state = self.state.get(p, {})
            count = counts.get(id(state.get("step")))
            self._step_one(group, options, hyper, p, state, count)
        trace.consume_grads(live)

    def _structure(self, index: int) -> tuple:
        """What the program of a step depends on besides numbers: a change means another program."""
        params = self.param_groups[index]["params"]
        states = filter(None, map(self.state.get, params))
        held = list(map(id, itertools.chain.from_iterable(map(_VALUES, states))))
        return len(self.param_groups), len(params), len(self.state), self._known_options(index), held

    def _known_options(self, index: int) -> tuple:
        """`_options` of a group, worked out when one of its values has changed."""
        group = self.param_groups[index]
        values = dict(group)
        for name in _NO_STRUCTURE:
            values.pop(name, None)
        known = self._known.get(index)
        if known is None or known[0] != values:  # (of equal values the same is seen)
            known = self._known[index] = (values, self._options(group))
        return known[1]

    def _options(self, group: Group) -> tuple:
        """What `_update` may see of a group besides numbers to compute with."""
        return tuple([_seen(value) for name, value in group.items() if name not in _NO_STRUCTURE])

    def _begin(self, group: Group, live: list[Tensor]) -> None:
        """Make the state of parameters met for the first time.

        They share one step count, so that its bias corrections are computed once (`_advance`).
        """
        new = [p for p in live if not self.state.get(p)]
        if not new:
            return
        with trace.paused():  # state made during a trace belongs to the program, not to the trace
            count = zeros((), dtype=float32)
            for p in new:
                state = self._init_state(group, p)
                if self._counts:
                    state = {"step": count, **state}
                if state:
                    self.state[p] = state

    def _advance(self, live: list[Tensor]) -> dict[int, Num]:
        """Add one to the step counts of the live parameters; gives the new counts by id of their tensor.

        A count shared with parameters that do not move now is split off first.
        """
        moving: dict[int, list[State]] = {}
        for p in live:
            state = self.state.get(p, {})
            if "step" in state:
                moving.setdefault(id(state["step"]), []).append(state)
        owners = Counter(id(s["step"]) for s in self.state.values() if "step" in s) if moving else {}
        counts = {}
        for key, states in moving.items():
            count = states[0]["step"]
            if owners[key] > len(states):
                with trace.paused():
                    count = count.clone()
                for state in states:
                    state["step"] = count
            count.add_(1)
            counts[id(count)] = scalar(operand(count, False))
        return counts

    def _step_one(
        self, group: Group, options: tuple, hyper: Hyper, p: Tensor, state: State, count: Num | None
    ) -> None:
        """Run `_update` on nodes and store what it returns."""
        tensors = {k: v for k, v in state.items() if isinstance(v, Tensor) and k != "step"}
        inputs = (p, cast(Tensor, p.grad), *tensors.values())
        tracked = bool(group.get("differentiable")) and needs_grad(*inputs)
        nodes = [operand(t, tracked) for t in inputs]
        update = self._recorded(group, options, nodes, list(tensors), count is not None)
        made = update(hyper, nodes, None if count is None else count.node)
        label = f"{type(self).__name__}Backward0"
        for target, node in zip((p, *[tensors[name] for name in update.changed]), made, strict=True):
            inplace(target, result(node, label, inputs, tracked))

    def _recorded(
        self, group: Group, options: tuple, nodes: list[Node], names: list[str], counted: bool
    ) -> Update:
        """`_update` for (p, grad, *state) of these types."""
        types = [node.type for node in nodes]
        key = (options, *types, *names, counted)
        known = self._updates.get(key)
        if known is None:

            def rule(hyper: Any, p: Num, grad: Num, state: dict[str, Num]) -> tuple[Num, dict[str, Num]]:
                return self._update(group, hyper, p, -grad if group.get("maximize") else grad, state)

            held = dict(zip(names, types[2:], strict=True))
            known = self._updates[key] = Update(rule, types[0], types[1], held, counted)
        return known

    _counts = True  # whether states have a "step"

    def _init_state(self, group: Group, p: Tensor) -> State:
        """The state (but for "step") of a parameter seen for the first time."""
        return {}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        """The new value of one parameter, and of the state entries that change.

        `state["step"]` is the count after this step, a scalar. Python's `if` may look at `group` only to see
        which options are set, and on which side of zero and of a half numbers are: see `_options`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither step nor _update")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters (the default), or fill them with zeros."""
        for group in self.param_groups:
            zero_grads(group["params"], set_to_none)

    # -------------------------------------------------------------------- groups

    def add_param_group(self, param_group: Group) -> None:
        """Add a group: a dict with "params" and the options in which it differs from the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering "
                "of tensors "
                "in sets will change between runs. Please use a list instead."
            )
        entries = [params] if isinstance(params, Tensor) else list(params)
        names = [e[0] for e in entries if isinstance(e, tuple)]
        param_group["params"] = [e[1] if isinstance(e, tuple) else e for e in entries]
        if names:
            if len(names) != len(entries):
                raise ValueError(
                    "all optimizer params should be with/without names. Some param names are missing"
                )
            param_group["param_names"] = names
        self._check_params(param_group)
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(
                    f"parameter group didn't specify a value of required optimization parameter {name}"
                )
            param_group.setdefault(name, default)
        self._check_groups(param_group)
        self.param_groups.append(param_group)

    def _check_params(self, param_group: Group) -> None:
        for p in param_group["params"]:
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}"
                )
            if not self.defaults.get("differentiable") and not p.is_leaf:
                raise ValueError(
                    f"can't optimize a non-leaf Tensor: {describe(p)} was computed from others; optimize "
                    "those, or tensor.detach().requires_grad_()"
                )

    def _check_groups(self, param_group: Group) -> None:
        mine = {id(p) for p in param_group["params"]}
        if len(mine) != len(param_group["params"]):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause "
                "an error; see github.com/pytorch/pytorch/issues/40967 for more information",
                stacklevel=4,
            )
        named = "param_names" in param_group
        for group in self.param_groups:
            if named != ("param_names" in group):
                raise ValueError(
                    "all optimizer param groups should be with/without names. cannot add param group "
                    f"{'with names' if named else 'without names'} to the optimizer"
                )
            shared = [p for p in group["params"] if id(p) in mine]
            if shared:
                raise ValueError(
                    f"some parameters appear in more than one parameter group: {describe(*shared)}"
                )

    # --------------------------------------------------------------------- hooks

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """`hook(optimizer, args, kwargs)` runs before `step` and may replace its arguments."""
        return hooks.add(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """`hook(optimizer, args, kwargs)` runs after `step`."""
        return hooks.add(self._optimizer_step_post_hooks, hook)


def _seen(value: Any) -> Any:
    """What rules may see of an option: of a number on which side of zero and of a half it is, a text itself,
    of others whether they are set; of a tuple that of each."""
    if isinstance(value, tuple):
        return tuple([_seen(v) for v in value])
    if isinstance(value, bool) or not isinstance(value, Real):
        return value if isinstance(value, str) else value is not None and bool(value)
    return _side(value, 0.0), _side(value, 0.5)


def _side(value: Any, of: float) -> int:
    return (value > of) - (value < of)


_NO_STRUCTURE = frozenset(("params", "param_names", "lr"))
_VALUES = operator.methodcaller("values")
