"""Where the user's program is: the first stack frame outside graphc and Python's library; the module path."""

from __future__ import annotations

import os
import sys
import threading
from types import CodeType, FrameType

from graphc.ir.node import Site, provide_sites

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep  # Python's own: copy, functools, threading
_internal: dict[str, bool] = {}  # by file: hashing a code object takes longer than all the rest
_sites: dict[tuple[str, int, str], Site] = {}
# By instruction: the number of its line is not at hand, it is counted from the beginning of its function.
_sites_at: dict[tuple[int, int, str], tuple[Site, CodeType]] = {}
_MANY = 100_000  # distinct lines; a bound on what a program that generates code can make us keep
_INSTRUCTIONS = 10_000  # the same for `_sites_at`, which keeps code


class _Path(threading.local):
    names: tuple[str, ...] = ()
    text: str = ""
    line: tuple[str, int] | None = None  # stands for the user's line, if set


_path = _Path()


def _is_internal(file: str) -> bool:
    inside = file.startswith((_PACKAGE, "<frozen"))
    inside = inside or (file.startswith(_LIBRARY) and "-packages" + os.sep not in file)
    if len(_internal) < _MANY:
        _internal[file] = inside
    return inside


def _site(key: tuple[str, int, str]) -> Site:
    site = _sites.get(key)
    if site is None:
        site = Site(*key)
        if len(_sites) < _MANY:
            _sites[key] = site
    return site


Place = tuple[tuple[str, ...], str, tuple[str, int] | None]


def place_of(site: Site | None) -> Place:
    """The user's line (of `current_site`) and the modules entered, to come back to with `move_to`."""
    return _path.names, _path.text, None if site is None else (site.file, site.line)


def move_to(place: Place) -> Place:
    """Behave as if at `place` from now on; gives the place to move back to."""
    saved = (_path.names, _path.text, _path.line)
    _path.names, _path.text, _path.line = place
    return saved


def current_site() -> Site | None:
    """The innermost user line being run, with the path of modules entered; None if there is none."""
    path = _path
    if path.line is not None:
        return _site((*path.line, path.text))
    frame: FrameType | None = sys._getframe(2)  # (who asks is one of us)
    known = _internal
    while frame is not None:
        code = frame.f_code
        inside = known.get(code.co_filename)
        if inside is None:
            inside = _is_internal(code.co_filename)
        if not inside:
            at = _sites_at.get((id(code), frame.f_lasti, path.text))
            return _at_instruction(frame, path.text) if at is None else at[0]
        frame = frame.f_back
    return None


def _at_instruction(frame: FrameType, module: str) -> Site:
    """The site of a frame, which is noted."""
    code = frame.f_code
    site = _site((code.co_filename, frame.f_lineno, module))
    if len(_sites_at) < _INSTRUCTIONS:
        _sites_at[id(code), frame.f_lasti, module] = site, code  # whose id is its own as long as it is here
    return site


class Pinned:
    """`with Pinned():` says that no code of the user's runs within: its line is looked up once."""

    __slots__ = ("saved",)

    def __enter__(self) -> None:
        self.saved = move_to(place_of(current_site()))

    def __exit__(self, *error: object) -> None:
        move_to(self.saved)


def enter_module(name: str) -> tuple[tuple[str, ...], str]:
    """Go one module deeper; give the result to `leave_module`."""
    saved = (_path.names, _path.text)
    _path.names = (*saved[0], name)
    _path.text = f"{saved[1]}.{name}" if saved[1] else name
    return saved


def leave_module(saved: tuple[tuple[str, ...], str]) -> None:
    """Back to where `enter_module` was called."""
    _path.names, _path.text = saved


provide_sites(current_site)
