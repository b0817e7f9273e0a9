"""The process's JIT: object code in, addresses of symbols out; code that nobody holds is unloaded.

MCJIT, not ORC: it links an object in 0.02 to 0.07 ms (ORC: 0.06 to 0.15). It unloads all that one engine has
loaded or nothing, and an engine takes 2.5 ms to make. So programs are loaded in *generations*, one engine
each: a generation goes when the last of its programs does. (Every load takes memory maps, of which Linux
gives a process 65530: without unloading, LLVM ends a process that has compiled some 20,000 programs.)
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import threading
from collections.abc import Iterable, Mapping
from functools import cache
from weakref import WeakValueDictionary

import llvmlite.binding as llvm

from graphc.backends.llvm.target import Target, check_runnable, new_target_machine

GENERATION = 64  # loads


class _Generation:
    """One MCJIT engine, and the addresses of what it has loaded. Its code goes with it."""

    def __init__(self, target: Target) -> None:
        empty = llvm.parse_assembly(f'target triple = "{target.triple}"')
        self._engine = llvm.create_mcjit_compiler(empty, new_target_machine(target))
        self.addresses: dict[str, int] = {}
        self.loads = 0

    def load(self, objects: Mapping[str, bytes]) -> None:
        """Link objects that are not loaded here yet, each under the name of the symbol it defines."""
        new = [symbol for symbol in objects if symbol not in self.addresses]
        for symbol in new:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(objects[symbol]))
        self._engine.finalize_object()
        for symbol in new:
            self.addresses[symbol] = self._engine.get_function_address(symbol)
        self.loads += 1

    def address(self, symbol: str) -> int:
        """The address of any symbol of a loaded object; 0 if there is none."""
        return self.addresses.get(symbol) or self._engine.get_function_address(symbol)


class Loaded:
    """Code in memory: it stays there as long as this object. Addresses must not outlive it."""

    def __init__(self, generations: Iterable[_Generation]) -> None:
        self._generations = tuple(generations)

    def address(self, symbol: str) -> int:
        """The address of a symbol that a loaded object defines; KeyError if there is none."""
        for generation in self._generations:
            found = generation.address(symbol)
            if found:
                return found
        raise KeyError(symbol)


class Engine:
    """Loads objects. Thread-safe."""

    def __init__(self, target: Target) -> None:
        """Raises RuntimeError if code for `target` cannot run in this process."""
        check_runnable(target)
        _provide_system_symbols()
        self._target = target
        self._latest: _Generation | None = None
        self._homes: WeakValueDictionary[str, _Generation] = WeakValueDictionary()
        self._lock = threading.Lock()

    def load(self, objects: Mapping[str, bytes]) -> Loaded:
        """Link objects, each under the name of the symbol it defines, unless all are in memory already.

        All symbols the objects use from each other must be in `objects`: LLVM ends the process on an
        unresolved symbol.
        """
        with self._lock:
            homes = [self._homes.get(symbol) for symbol in objects]
            known = [home for home in homes if home is not None]
            if len(known) == len(homes):
                return Loaded(dict.fromkeys(known))
            latest = self._latest
            if latest is None or latest.loads >= GENERATION:
                latest = self._latest = _Generation(self._target)
            latest.load(objects)
            self._homes.update(dict.fromkeys(objects, latest))
            return Loaded((latest,))


@cache
def get_engine(target: Target) -> Engine:
    """The engine of this process (one for each target; a process normally has one)."""
    return Engine(target)


def _provide_system_symbols() -> None:
    """Make visible to the linker what the walker calls and the process does not export by itself."""
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernelbase")
        for name in ("WaitOnAddress", "WakeByAddressAll", "SwitchToThread"):
            llvm.add_symbol(name, ctypes.cast(getattr(kernel, name), ctypes.c_void_p).value)
        return
    library = ctypes.util.find_library("m")
    if library:
        llvm.load_library_permanently(library)  # fmod and friends, for the few operations LLVM leaves to libm
