"""Saving and loading the state of a tree of modules, with PyTorch's keys and error texts.

Loading has two halves: every module compares and *plans* its copies, and only if the whole tree
agrees are they carried out. So a failed `load_state_dict` changes nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from graphc.frontend.errors import fail
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.nn import hooks
from graphc.nn.parameter import Parameter

if TYPE_CHECKING:
    from graphc.nn.module import Module

_EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` returns."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    def __str__(self) -> str:
        return repr(self)


class _Loading(threading.local):
    """`actions` collects the copies of the load that is under way in this thread, if any."""

    actions: list[Callable[[], Any]] | None = None


_loading = _Loading()


def _do(action: Callable[[], Any]) -> None:
    """Carry out a copy: at the end of the load under way, or at once outside of one."""
    if _loading.actions is None:
        action()
    else:
        _loading.actions.append(action)


def _copy(target: Tensor, source: Tensor) -> None:
    with no_grad():
        target.copy_(source)


def _assign(module: Module, name: str, old: Tensor, source: Tensor) -> None:
    if isinstance(old, Parameter):
        if isinstance(source, Parameter):
            source.requires_grad_(old.requires_grad)
        else:
            source = Parameter(source, requires_grad=old.requires_grad)
    setattr(module, name, source)


class StateDict:
    """The methods of `Module` that save and load."""

    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]
    _non_persistent_buffers_set: set[str]
    _state_dict_hooks: hooks.HookTable
    _state_dict_pre_hooks: hooks.HookTable
    _load_state_dict_pre_hooks: hooks.HookTable
    _load_state_dict_post_hooks: hooks.HookTable
    _version: int

    def get_extra_state(self) -> Any:
        """Override to save more than tensors; called by `state_dict`."""
        raise RuntimeError("get_extra_state is not defined: override it together with set_extra_state")

    def set_extra_state(self, state: Any) -> None:
        """Override to load what `get_extra_state` returned."""
        raise RuntimeError("set_extra_state is not defined: override it together with get_extra_state")

    def _local_state(self) -> dict[str, Tensor]:
        kept = {k: v for k, v in self._buffers.items() if k not in self._non_persistent_buffers_set}
        return {k: v for k, v in (*self._parameters.items(), *kept.items()) if v is not None}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Put this module's own state into `destination`. Subclasses may extend it."""
        for name, value in self._local_state().items():
            destination[prefix + name] = value if keep_vars else value.detach()
        if type(self).get_extra_state is not StateDict.get_extra_state:
            destination[prefix + _EXTRA] = self.get_extra_state()

    def state_dict(
        self, *args: Any, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """An ordered dict path -> tensor of all parameters and persistent buffers.

        The tensors share memory with the module's (take `deepcopy` for a snapshot). With `keep_vars`
        the parameters themselves are returned.
        """
        if args:
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and prefix == "" else prefix
            keep_vars = args[2] if len(args) > 2 and not keep_vars else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()  # type: ignore[attr-defined]
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=prefix + name + ".", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            result = hook(self, destination, prefix, local_metadata)
            if result is not None:
                destination = result
        return destination

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Compare this module's own state with `state_dict` and plan the copies. May be extended."""
        report = (missing_keys, unexpected_keys, error_msgs)
        for hook in self._load_state_dict_pre_hooks.values():
            hook(state_dict, prefix, local_metadata, strict, *report)
        assign = local_metadata.get("assign_to_params_buffers", False)
        local = self._local_state()
        for name, target in local.items():
            key = prefix + name
            if key not in state_dict:
                if strict:
                    missing_keys.append(key)
                continue
            source = _matching(key, state_dict[key], target, error_msgs)
            if source is None:
                continue
            if assign:
                _do(lambda name=name, old=target, new=source: _assign(self, name, old, new))  # type: ignore[misc,arg-type]
            else:
                _do(lambda old=target, new=source: _copy(old, new))  # type: ignore[misc]
        self._load_extra(state_dict, prefix + _EXTRA, strict, missing_keys, unexpected_keys)
        if strict:
            unexpected_keys.extend(_unexpected(state_dict, prefix, self._modules, local))

    def _load_extra(
        self, state_dict: dict[str, Any], key: str, strict: bool, missing: list[str], unexpected: list[str]
    ) -> None:
        if type(self).set_extra_state is not StateDict.set_extra_state:
            if key in state_dict:
                _do(lambda: self.set_extra_state(state_dict[key]))
            elif strict:
                missing.append(key)
        elif strict and key in state_dict:
            unexpected.append(key)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values into the parameters and buffers of this module and all below it.

        With `strict` the keys must be exactly those of `state_dict()`. With `assign` the given tensors
        replace the module's instead of being copied. Returns (missing_keys, unexpected_keys).
        RuntimeError naming every missing, unexpected or mis-shaped key; nothing has changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        metadata = getattr(state_dict, "_metadata", None) or {}
        result = IncompatibleKeys([], [])
        errors: list[str] = []
        saved, _loading.actions = _loading.actions, []
        try:
            values = OrderedDict(state_dict)
            _plan(self, values, metadata, assign, result, errors)  # type: ignore[arg-type]
            actions = _loading.actions
        finally:
            _loading.actions = saved
        if strict and result.unexpected_keys:
            keys = ", ".join(f'"{k}"' for k in result.unexpected_keys)
            errors.insert(0, f"Unexpected key(s) in state_dict: {keys}. ")
        if strict and result.missing_keys:
            keys = ", ".join(f'"{k}"' for k in result.missing_keys)
            errors.insert(0, f"Missing key(s) in state_dict: {keys}. ")
        if errors:
            errors += _hints(result)
            text = "\n\t".join(errors)
            raise fail(RuntimeError, f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{text}")
        for action in actions:
            action()
        return result

    def _register_state_dict_hook(self, hook: Callable) -> hooks.RemovableHandle:
        return hooks.add(self._state_dict_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable) -> hooks.RemovableHandle:
        """`hook(module, state_dict, prefix, local_metadata)` runs after `state_dict` of this module."""
        return hooks.add(self._state_dict_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable) -> hooks.RemovableHandle:
        """`hook(module, prefix, keep_vars)` runs before `state_dict` of this module."""
        return hooks.add(self._state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable, with_module: bool = False
    ) -> hooks.RemovableHandle:
        call = (lambda *args: hook(self, *args)) if with_module else hook
        return hooks.add(self._load_state_dict_pre_hooks, call)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> hooks.RemovableHandle:
        """`hook(module, state_dict, prefix, local_metadata, strict, missing, unexpected, errors)`."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def register_load_state_dict_post_hook(self, hook: Callable) -> hooks.RemovableHandle:
        """`hook(module, incompatible_keys)`; it may edit the lists of keys in place."""
        return hooks.add(self._load_state_dict_post_hooks, hook)


def _matching(key: str, source: Any, target: Tensor, errors: list[str]) -> Tensor | None:
    """The value to load into `target`, or None after reporting why it does not fit."""
    if not isinstance(source, Tensor):
        errors.append(
            f'While copying the parameter named "{key}", expected graphc.Tensor or Tensor-like object from '
            f"checkpoint but received {type(source)}"
        )
        return None
    if tuple(target.shape) == () and tuple(source.shape) == (1,):
        source = source.reshape(())
    if tuple(source.shape) != tuple(target.shape):
        errors.append(
            f"size mismatch for {key}: copying a param with shape {source.shape} from checkpoint, "
            f"the shape in current model is {target.shape}."
        )
        return None
    return source


def _hints(keys: IncompatibleKeys) -> list[str]:
    """What to do where all missing keys are there under a prefix, which a wrapper of the model has left."""
    if keys.missing_keys and keys.unexpected_keys:
        first = keys.missing_keys[0]
        for key in keys.unexpected_keys:
            prefix = key.removesuffix(first)
            if prefix != key and {prefix + k for k in keys.missing_keys} <= set(keys.unexpected_keys):
                return [
                    f'The keys have the prefix "{prefix}": take it off with key.removeprefix("{prefix}").'
                ]
    return []


def _unexpected(state_dict: Mapping[str, Any], prefix: str, modules: Mapping, local: Mapping) -> list[str]:
    found = []
    for key in state_dict:
        if not key.startswith(prefix) or key == prefix + _EXTRA:
            continue
        name, dot, _ = key[len(prefix) :].partition(".")
        if name not in (modules if dot else local):
            found.append(key)
    return found


def _plan(
    module: Module,
    state: dict[str, Any],
    metadata: Mapping,
    assign: bool,
    result: IncompatibleKeys,
    errors: list[str],
    prefix: str = "",
) -> None:
    """Let the whole tree plan its copies; a module's children come before its post-hooks."""
    local_metadata = dict(metadata.get(prefix[:-1], {}))
    if assign:
        local_metadata["assign_to_params_buffers"] = True
    module._load_from_state_dict(
        state, prefix, local_metadata, True, result.missing_keys, result.unexpected_keys, errors
    )
    for name, child in module._modules.items():
        if child is not None:
            below = f"{prefix}{name}."
            part = {k: v for k, v in state.items() if k.startswith(below)}
            _plan(child, part, metadata, assign, result, errors, below)
    for hook in module._load_state_dict_post_hooks.values():
        if hook(module, result) is not None:
            raise AssertionError(
                "Hooks registered with `register_load_state_dict_post_hook` are not expected to return new "
                "values: modify incompatible_keys in place instead"
            )
