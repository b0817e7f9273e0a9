"""Calls of this library's own modules in training loops, put off as calls of compiled functions are.

A tree of library modules without hooks is a pure function of its arguments, parameters, buffers and
settings. Under gradient mode its call is recorded once per user line and signature, and then noted
(`graphc.frontend.tracing.deferred`): a model that is a Sequential of layers, its loss, `backward()` and
`step()` run as one program. If the call has to be built after all, the module is called again, then; a
module whose calls mostly have to be built (since its caller works on their results with other operations)
is left alone.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from graphc.frontend import sites, tree
from graphc.frontend.cell import Deferred
from graphc.frontend.modes import MODE
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracing import deferred
from graphc.frontend.tracing.record import NeedStatic, record_call
from graphc.frontend.tracing.trace import Members
from graphc.frontend.tracing.variant import Variant
from graphc.ir.node import Site, freeze
from graphc.nn.tree import CALLING, walk

if TYPE_CHECKING:
    from graphc.nn.module import Module

PATIENCE = 4  # calls built one after the other, before a module's calls are no longer noted
RETRY = 64  # after so many calls one is noted all the same; if it has to be built too, after twice as many
VARIANTS = 8  # for one line and signature
SIGNATURES = 256  # of one module, before they are forgotten and recorded again

ORDINARY = deferred.NOT_NOTED

_PLAIN = (int, float, str, bool)
_stateless: dict[tuple, Module] = {}  # by class, line and settings


class Recording:
    """What the calls of one module have been recorded as: by line and signature, None for what cannot be.

    It is of no use to copies of the module, which get one of their own.
    """

    def __init__(self, owner: Module) -> None:
        self.owner = weakref.ref(owner)
        self.known: dict[Any, list[Variant] | None] = {}
        self.edits = -1
        self.pure = False
        self.missed = 0
        self.skipped, self.wait = 0, RETRY

    def __deepcopy__(self, memo: dict) -> None:
        return None

    def is_pure(self, module: Module) -> bool:
        """Whether all modules of the tree are this library's, without hooks or a `forward` of their own."""
        if self.edits != Members.edits:
            self.pure = all(_is_plain(m) for _, m in walk(module))
            self.edits = Members.edits
        return self.pure

    def is_worthwhile(self) -> bool:
        if self.missed < PATIENCE:
            return True
        self.skipped += 1
        if self.skipped < self.wait:
            return False
        self.skipped, self.wait = 0, 2 * self.wait  # (each such call makes another program of the step)
        return True


def _is_plain(module: Module) -> bool:
    fields = module.__dict__
    if "_forward_hooks" not in fields:  # it is compiled, and has programs of its own
        return False
    hooked = (
        fields["_forward_hooks"]
        or fields["_forward_pre_hooks"]
        or fields["_backward_hooks"]
        or fields["_backward_pre_hooks"]
    )
    return module.is_library and not hooked and "forward" not in fields


class Noted:
    """A noted call of a module, with what is needed to make it again."""

    __slots__ = ("args", "caller", "module", "place", "recording", "variant")

    def __init__(
        self, module: Module, args: tuple, variant: Variant, recording: Recording, site: Site | None
    ) -> None:
        self.module, self.args, self.variant, self.recording = module, args, variant, recording
        self.caller = CALLING.module
        self.place = sites.place_of(site)

    def can_rerun(self) -> bool:
        """Whether the module is as it was."""
        return self.variant.holds()

    def rerun(self) -> list[Tensor]:
        """Call the module as from the line and the modules from which it was called."""
        place, caller, again = sites.move_to(self.place), CALLING.module, CALLING.again
        CALLING.module, CALLING.again = self.caller, True
        try:
            result = self.module(*self.args)
        finally:
            sites.move_to(place)
            CALLING.module, CALLING.again = caller, again
        return [
            t for t, o in zip(tree.leaves(result), self.variant.outputs, strict=True) if o.kind == "value"
        ]

    def taken(self, as_noted: bool) -> None:
        """Whether it was worth noting."""
        recording = self.recording
        if as_noted:
            recording.missed, recording.wait = 0, RETRY
        else:
            recording.missed += 1


def call(module: Module, args: tuple) -> Any:
    """Note a call of a library module under gradient mode; ORDINARY if it is to be made now."""
    if CALLING.again:
        return ORDINARY
    known = module.__dict__.get("_recording")
    if known is not None and not known.is_worthwhile():
        return ORDINARY
    site = sites.current_site()
    module, recording = _recording_of(module, site)
    if recording is not known and not recording.is_worthwhile():
        return ORDINARY
    if not recording.is_pure(module):
        return ORDINARY
    key: tuple = (site,)
    for arg in args:
        if isinstance(arg, Tensor):
            kind = arg._cell.type
            key += (kind.shape, kind.dtype, arg.requires_grad)
        elif arg is None or type(arg) in (int, bool, str):
            key += (type(arg), arg)
        else:
            return ORDINARY
    if len(recording.known) > SIGNATURES:
        recording.known.clear()
    variants = recording.known.setdefault(key, [])
    if variants is None:
        return ORDINARY
    variant = next((v for v in variants if v.holds()), None)
    if variant is None:
        variant = _record(module, args)
        if variant is None:
            recording.known[key] = None
            return ORDINARY
        variants.append(variant)
        del variants[:-VARIANTS]
    replay = variant.replay
    assert replay is not None
    return deferred.note(replay, args, variant.result, Noted(module, args, variant, recording, site))


def _recording_of(module: Module, site: Site | None) -> tuple[Module, Recording]:
    """The recording of a module, and the module that its calls are recorded with."""
    found = module.__dict__.get("_recording")
    if found is not None and found.owner() is module:
        return module, found
    like = _like(module, site)
    found = like.__dict__.get("_recording")
    if found is None or found.owner() is not like:
        found = like.__dict__["_recording"] = Recording(like)
    module.__dict__["_recording"] = found
    return like, found


def _like(module: Module, site: Site | None) -> Module:
    """The module itself; for one without state (a loss made anew at every step) one that stands for all such
    that are called from this line."""
    fields = module.__dict__
    held = (*fields["_parameters"].values(), *fields["_buffers"].values())
    if fields["_modules"] or any(v is not None for v in held) or not _is_plain(module):
        return module
    tables: list[tuple[str, Any]] = []
    key: list[Any] = [type(module), site]
    for name, value in fields.items():
        if name == "_recording":
            continue
        if isinstance(value, (dict, set)):
            tables.append((name, value))
        elif value is None or type(value) in _PLAIN:
            key.append((name, freeze(value)))
        else:
            return module
    found = _stateless.get(tuple(key))
    if found is None:
        if len(_stateless) >= SIGNATURES:
            _stateless.clear()
        found = _stateless[tuple(key)] = object.__new__(type(module))
        found.__dict__.update(fields, _recording=None, **{name: type(v)(v) for name, v in tables})
    return found


def _record(module: Module, args: tuple) -> Variant | None:
    """Trace a call; None if its result has no history, or if it depends on values that are known now."""
    state = [*module.parameters(), *module.buffers()]
    if any(type(t._cell) is Deferred for t in state):
        MODE.events.build()  # type: ignore[union-attr]
    try:
        record = record_call(module, type(module).__name__, args, {}, apart=True)
    except (Exception, NeedStatic):  # whatever is wrong is for the ordinary call to say
        return None
    return Variant(record) if record.stands_for_calls else None
