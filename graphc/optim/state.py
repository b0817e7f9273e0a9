"""Saving and loading the state of an optimizer, in PyTorch's format."""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

from graphc.frontend.functions.creation import full
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.ir.types import float32
from graphc.nn import hooks
from graphc.nn.hooks import HookTable, RemovableHandle

Group = dict[str, Any]
State = dict[str, Any]

HOOK_TABLES = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)


class StateDict:
    """The methods of `Optimizer` that save and load."""

    # Options that older saved states lack, and what they were then.
    _since_saved: ClassVar[Group] = {}

    defaults: Group
    param_groups: list[Group]
    state: defaultdict[Any, State]
    _optimizer_step_pre_hooks: HookTable
    _optimizer_step_post_hooks: HookTable
    _optimizer_state_dict_pre_hooks: HookTable
    _optimizer_state_dict_post_hooks: HookTable
    _optimizer_load_state_dict_pre_hooks: HookTable
    _optimizer_load_state_dict_post_hooks: HookTable

    def _forget(self) -> None:
        """Told when options or state have been replaced: what followed from them is not so any more."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
        for group in self.param_groups:
            for name, value in self._since_saved.items():
                group.setdefault(name, value)
        for table in HOOK_TABLES:
            self.__dict__.setdefault(table, HookTable())

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: state}, "param_groups": [...]}; parameters are numbered in order.

        State entries whose name starts with an underscore are private and stay out.
        """
        for pre in self._optimizer_state_dict_pre_hooks.values():
            pre(self)
        number: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            start = len(number)
            for i, p in enumerate(group["params"], start):
                number.setdefault(id(p), i)
            packed = {k: v for k, v in group.items() if k != "params"}
            packed["params"] = [number[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {}
        for key, value in self.state.items():
            if isinstance(key, Tensor):
                key, value = number[id(key)], {k: v for k, v in value.items() if not str(k).startswith("_")}
            state[key] = value
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for post in self._optimizer_state_dict_post_hooks.values():
            changed = post(self, result)
            result = result if changed is None else changed
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state made by `state_dict`; ValueError if its groups do not fit (nothing changes).

        Tensors are copied, into the tensors that are there already where possible, so that programs
        compiled with this optimizer go on with the loaded values.
        """
        state_dict = dict(state_dict)
        for pre in self._optimizer_load_state_dict_pre_hooks.values():
            changed = pre(self, state_dict)
            state_dict = state_dict if changed is None else changed
        saved = copy.deepcopy(state_dict["param_groups"])
        if len(saved) != len(self.param_groups):
            raise ValueError(
                "loaded state dict has a different number of parameter groups: "
                f"{len(saved)}, and the optimizer has {len(self.param_groups)}"
            )
        for i, (group, new) in enumerate(zip(self.param_groups, saved, strict=True)):
            if len(group["params"]) != len(new["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's "
                    f"group: group {i} has {len(new['params'])} parameters, here {len(group['params'])}"
                )
        mine = itertools.chain.from_iterable(g["params"] for g in self.param_groups)
        theirs = itertools.chain.from_iterable(g["params"] for g in saved)
        by_number = dict(zip(theirs, mine, strict=True))
        with no_grad():
            self._take_state(state_dict["state"], by_number)
        for group, new in zip(self.param_groups, saved, strict=True):
            new["params"] = group["params"]
            if "param_names" in group:
                new.setdefault("param_names", group["param_names"])
            group.clear()
            group.update(new)
        self.__setstate__({"state": self.state, "param_groups": self.param_groups})
        for post in self._optimizer_load_state_dict_post_hooks.values():
            post(self)

    def _take_state(self, saved: dict[Any, Any], by_number: dict[int, Tensor]) -> None:
        state: defaultdict[Any, State] = defaultdict(dict)
        counts: dict[tuple[int, float], Tensor] = {}
        for key, value in saved.items():
            if key not in by_number:
                state[key] = value
                continue
            p = by_number[key]
            old = self.state.get(p, {})
            state[p] = {name: _taken(p, name, item, old.get(name), counts) for name, item in value.items()}
        self.state = state

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer)` runs before `state_dict`."""
        return hooks.add(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer, state_dict)` runs after `state_dict` and may return another."""
        return hooks.add(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer, state_dict)` runs before loading and may return another."""
        return hooks.add(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer)` runs after loading."""
        return hooks.add(self._optimizer_load_state_dict_post_hooks, hook, prepend)


def _taken(p: Tensor, name: str, item: Any, old: Any, counts: dict[tuple[int, float], Tensor]) -> Any:
    """A state entry as loaded: a copy, in the dtype of the parameter; step counts stay float32.

    Equal step counts become one tensor again (see `Optimizer._advance`).
    """
    if name == "step":
        number = float(item)
        key = (id(old), number)
        if key not in counts:
            fits = isinstance(old, Tensor) and not any(k[0] == id(old) for k in counts)
            counts[key] = old.fill_(number) if fits else full((), number, dtype=float32)
        return counts[key]
    if isinstance(item, Tensor):
        wanted = p.dtype if p.dtype.is_float else item.dtype
        if isinstance(old, Tensor) and old.shape == item.shape and old.dtype is wanted:
            return old.copy_(item)
        return item.detach().to(wanted).clone()
    return copy.deepcopy(item)
