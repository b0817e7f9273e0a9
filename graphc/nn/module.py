"""Module: the base class of everything with parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from graphc.frontend import sites
from graphc.frontend.evaluation import lazy
from graphc.frontend.leaves import zero_grads
from graphc.frontend.modes import MODE, no_grad, settle
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracing.trace import PLAIN, members_changed
from graphc.nn import hooks, recorded, tree
from graphc.nn.backward_hooks import Gates, Hooked
from graphc.nn.convert import Conversion
from graphc.nn.hooks import HookTable, RemovableHandle
from graphc.nn.parameter import Buffer, Parameter
from graphc.nn.state import StateDict
from graphc.nn.tree import CALLING

M = TypeVar("M", bound="Module")
_LIBRARY, _UTILITIES = f"{__package__}.", f"{__package__}.utils"
_TABLES = ("_parameters", "_buffers", "_modules")


def _taken_over(buffer: Any, value: Any) -> bool:
    """Write what a trace has computed into the buffer that it is to replace, if it can take it.

    Compiled code changes tensors, not modules: so the buffer has its new value after every call.
    """
    trace = MODE.trace
    if trace is None or not isinstance(buffer, Tensor) or not isinstance(value, Tensor):
        return False
    if value._cell.trace is not trace or value.requires_grad or value._cell.type != buffer._cell.type:
        return False
    with no_grad():
        buffer.copy_(value)
    return True


class Module(tree.Traversal, StateDict, Conversion, Hooked):
    """Base class of all layers and models, with PyTorch's interface.

    Assigning a `Parameter`, a `Buffer` or a `Module` to an attribute registers it. Calling the module runs
    `forward` between the hooks; errors and dumps name the path at which it is called (``LeNet.fc1``).
    """

    training: bool
    is_library = False  # the class is one of this package's layers: its forward is a pure function
    _version = 1
    call_super_init = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and (args or kwargs):
            name = type(self).__name__
            given = f"an unexpected keyword argument '{next(iter(kwargs))}'" if kwargs else None
            text = given or f"1 positional argument but {len(args) + 1} were given"
            verb = "got" if given else "takes"
            raise TypeError(f"{name}.__init__() {verb} {text}")
        fields = self.__dict__
        fields["training"] = True
        fields["_recording"] = None
        for table in _TABLES:
            fields[table] = {}
        fields["_non_persistent_buffers_set"] = set()
        for table in _HOOK_TABLES:
            fields[table] = HookTable()
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.is_library = cls.__module__.startswith(_LIBRARY) and not cls.__module__.startswith(_UTILITIES)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation; every subclass defines it."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    # ------------------------------------------------------------------ calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        caller = CALLING.module
        if MODE.trace is not None:
            MODE.trace.note_module(self)
        elif caller is None and not MODE.grad and MODE.pending:
            lazy.end_batch()  # an evaluation loop computes batch by batch, however late its results are read
        elif MODE.grad and self.is_library and not kwargs:
            result = recorded.call(self, args)
            if result is not recorded.ORDINARY:
                return result
        name = type(self).__name__ if caller is None else tree.path_below(caller, self)
        if name is None:  # not part of the calling module
            name = type(self).__name__
        saved = sites.enter_module(name) if name else None
        CALLING.module = self
        try:
            fields = self.__dict__
            if (
                fields["_forward_hooks"]
                or fields["_forward_pre_hooks"]
                or fields["_backward_hooks"]
                or fields["_backward_pre_hooks"]
            ):
                return self._call_with_hooks(args, kwargs)
            return self.forward(*args, **kwargs)
        finally:
            CALLING.module = caller
            if saved is not None:
                sites.leave_module(saved)

    def _call_with_hooks(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        done: set[int] = set()
        result: Any = None
        try:
            args, kwargs = self._run_pre_hooks(args, kwargs)
            gates = Gates(self) if self._backward_hooks or self._backward_pre_hooks else None
            result = self.forward(*(args if gates is None else gates.enter(args)), **kwargs)
            for key, hook in list(self._forward_hooks.items()):
                done.add(key)
                result = self._run_forward_hook(key, hook, args, kwargs, result)
            return result if gates is None else gates.leave(result)
        except Exception:
            for key, hook in list(self._forward_hooks.items()):
                if key in self._forward_hooks_always_called and key not in done:
                    try:
                        result = self._run_forward_hook(key, hook, args, kwargs, result)
                    except Exception as error:  # the first error is the one to report
                        warnings.warn(
                            f"module forward hook with `always_call=True` raised an error that was silenced "
                            f"as another error was raised in forward: {error}",
                            stacklevel=3,
                        )
            raise

    def _run_pre_hooks(self, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        for key, hook in list(self._forward_pre_hooks.items()):
            if key in self._forward_pre_hooks_with_kwargs:
                changed = hook(self, args, kwargs)
                if changed is not None:
                    if not (isinstance(changed, tuple) and len(changed) == 2):
                        raise RuntimeError(
                            "forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                            f"but got {changed}."
                        )
                    args, kwargs = changed
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        return args, kwargs

    def _run_forward_hook(self, key: int, hook: Callable, args: tuple, kwargs: dict, result: Any) -> Any:
        with_kwargs = key in self._forward_hooks_with_kwargs
        changed = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
        return result if changed is None else changed

    def register_forward_pre_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """`hook(module, args)` (or `(module, args, kwargs)`) runs before `forward` and may replace them."""
        flags = (self._forward_pre_hooks_with_kwargs,) if with_kwargs else ()
        return hooks.add(self._forward_pre_hooks, hook, prepend, flags)

    def register_forward_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """`hook(module, args, output)` (or `(module, args, kwargs, output)`) runs after `forward`.

        A result that is not None replaces the output. With `always_call` it also runs if forward raised.
        """
        flags = [self._forward_hooks_with_kwargs] if with_kwargs else []
        flags += [self._forward_hooks_always_called] if always_call else []
        return hooks.add(self._forward_hooks, hook, prepend, tuple(flags))

    # -------------------------------------------------------------- registering

    def _check_name(self, what: str, name: str) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{what} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{what} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{what} name can\'t be empty string ""')

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Keep a tensor that is state but not trained; in `state_dict` unless not `persistent`."""
        self._check_name("buffer", name)
        if hasattr(self, name) and name not in self._buffers:
            raise KeyError(f"attribute '{name}' already exists")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' "
                "(graphc Tensor or None required)"
            )
        self._buffers[name] = tensor
        members_changed()
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(
            name
        )

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Keep a trained tensor under `name`; None reserves the name."""
        self._check_name("parameter", name)
        if hasattr(self, name) and name not in self._parameters:
            raise KeyError(f"attribute '{name}' already exists")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                "(graphc.nn.Parameter or None required)"
            )
        if param is not None and param.grad_fn is not None:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created "
                f"explicitly. To express '{name}' as a function of another Tensor, compute the value in the "
                "forward() method."
            )
        self._parameters[name] = param
        members_changed()

    def add_module(self, name: str, module: Module | None) -> None:
        """Make `module` a child under `name`."""
        if not isinstance(module, Module) and module is not None:
            what = getattr(module, "__name__", type(module).__name__)
            hint = f" instance: write {what}()" if isinstance(module, type) else ""
            raise TypeError(f"{what} is not a Module subclass{hint}")
        self._check_name("module", name)
        if hasattr(self, name) and name not in self._modules:
            raise KeyError(f"attribute '{name}' already exists")
        self._modules[name] = module
        tree.edited()

    register_module = add_module

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__
        for table in _TABLES:
            members = fields.get(table)
            if members is not None and name in members:
                return members[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if isinstance(value, Parameter):
            self._clear(name, "_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._clear(name, "_modules")
            self._check_name("module", name)
            self._modules[name] = value
            tree.edited()
        elif isinstance(value, Buffer):
            self._clear(name, "_buffers")
            self.register_buffer(name, value, value.persistent)
        elif name in fields.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as parameter '{name}' "
                    "(graphc.nn.Parameter or None expected)"
                )
            fields["_parameters"][name] = None
            members_changed()
        elif name in fields.get("_modules", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as child module '{name}' "
                    "(graphc.nn.Module or None expected)"
                )
            fields["_modules"][name] = None
            tree.edited()
        elif name in fields.get("_buffers", ()):
            if _taken_over(fields["_buffers"][name], value):
                return
            self.register_buffer(name, value, name not in self._non_persistent_buffers_set)
        else:
            settle()
            before = fields.get(name)
            object.__setattr__(self, name, value)
            if self.is_library or (before is not value and type(value) in PLAIN):
                members_changed()

    def _clear(self, name: str, keep: str) -> None:
        """Take `name` out of every table but `keep`, before it is entered there."""
        fields = self.__dict__
        if "_parameters" not in fields:
            what = {"_parameters": "parameters", "_modules": "module", "_buffers": "buffer"}[keep]
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        fields.pop(name, None)
        for table in _TABLES:
            if table != keep:
                fields[table].pop(name, None)
        fields["_non_persistent_buffers_set"].discard(name)

    def __delattr__(self, name: str) -> None:
        for table in _TABLES:
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                self._non_persistent_buffers_set.discard(name)
                tree.edited()
                return
        object.__delattr__(self, name)

    # --------------------------------------------------------------- the modes

    def train(self: M, mode: bool = True) -> M:
        """Set training mode (affects dropout, batch norm, ...) here and below; returns self."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: M) -> M:
        """`train(False)`."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Set `requires_grad` of all parameters; returns self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        zero_grads(self.parameters(), set_to_none)

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call `fn` on every module below, then on this one; returns self."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---------------------------------------------------------------- printing

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What `repr` shows between the brackets; override in subclasses."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({k}): " + repr(m).replace("\n", "\n  ") for k, m in self._modules.items()]
        if not children and len(lines) == 1:
            return f"{self._get_name()}({lines[0]})"
        if not children and not lines:
            return f"{self._get_name()}()"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines + children) + "\n)"

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__}
        for table in _TABLES:
            names.update(self.__dict__[table])
        return sorted(name for name in names if not name[0].isdigit())

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        tree.edited()


_HOOK_TABLES = (
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
