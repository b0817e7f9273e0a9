"""The one table of code-generation targets; another CPU is another row.

A target is a triple, a CPU name for LLVM's scheduling model, an explicit feature list, and the facts that
lowering needs (`Machine`). ``GRAPHC_TARGET`` selects one by name; ``native`` is this machine.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from graphc.program import Machine

CODEGEN_LEVEL = 2


@dataclass(frozen=True)
class Target:
    """What LLVM is told, and what lowering is told.

    `registers` counts the vector registers; `required` are the features without which code for this
    target must not run here. `key` names the target in cache keys.
    """

    name: str
    arch: str
    triple: str
    cpu: str
    features: str
    required: frozenset[str]
    registers: int
    machine: Machine

    @property
    def key(self) -> str:
        """Everything about the target and the code generator that decides the bytes of an object."""
        version = ".".join(map(str, llvm.llvm_version_info))
        return "|".join(
            (self.triple, self.cpu, self.features, f"O{CODEGEN_LEVEL}", llvmlite.__version__, version)
        )


_V3 = frozenset(
    "avx avx2 bmi bmi2 cmov cx16 f16c fma lzcnt movbe popcnt sahf sse3 sse4.1 sse4.2 ssse3".split()
)
_V4 = _V3 | frozenset("avx512f avx512bw avx512cd avx512dq avx512vl".split())
_NEON = frozenset(("neon", "fp-armv8"))


def _row(
    name: str, arch: str, cpu: str, required: frozenset[str], registers: int, machine: Machine
) -> tuple[str, Target]:
    triple = f"{arch}-unknown-linux-gnu"
    features = ",".join(f"+{f}" for f in sorted(required))
    return name, Target(name, arch, triple, cpu, features, required, registers, machine)


# Tiles (rows, vectors): as many accumulators as the register file holds beside the loads, widest first:
# a wide tile needs the fewest loads for each multiply-add.
_TABLE = dict(
    (
        _row(
            "x86-64-v4",
            "x86_64",
            "x86-64-v4",
            _V4,
            32,
            Machine(
                name="x86-64-v4",
                vector_bytes=64,
                tiles=((6, 4), (8, 3), (14, 2), (28, 1)),
                masked=True,
            ),
        ),
        _row(
            "x86-64-v3",
            "x86_64",
            "x86-64-v3",
            _V3,
            16,
            Machine(name="x86-64-v3", vector_bytes=32, tiles=((6, 2), (4, 3), (12, 1)), masked=False),
        ),
        _row(
            "aarch64",
            "aarch64",
            "cortex-a72",  # a scheduling model that keeps the tiles in registers; baseline instructions
            _NEON,
            32,
            Machine(name="aarch64", vector_bytes=16, tiles=((8, 3), (6, 4), (12, 2)), masked=False),
        ),
    )
)
TARGET_NAMES = ("native", *_TABLE)


def get_target(name: str | None = None) -> Target:
    """The target called `name`, or the one ``GRAPHC_TARGET`` selects, or native.

    Raises ValueError for an unknown name and RuntimeError if this CPU is none of the supported kinds.
    """
    name = name or os.environ.get("GRAPHC_TARGET") or "native"
    if name == "native":
        return _native()
    if name not in _TABLE:
        raise ValueError(f"unknown target {name!r} (GRAPHC_TARGET); known targets: {', '.join(TARGET_NAMES)}")
    return _hosted(_TABLE[name])


@cache
def _hosted(target: Target) -> Target:
    """The target with this process's triple if the architecture is the same (object format, OS)."""
    host = llvm.get_process_triple()
    return replace(target, triple=host) if _arch_of(host) == target.arch else target


def _arch_of(triple: str) -> str:
    arch = triple.split("-", 1)[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(arch, arch)


@cache
def _native() -> Target:
    arch = _arch_of(llvm.get_process_triple())
    available = host_features()
    for base in _TABLE.values():
        if base.arch == arch and base.required <= available:
            features = _explicit_features(available)
            facts = base.machine
            l1, l2 = _cache_size(1, facts.l1_bytes), _cache_size(2, facts.l2_bytes)
            l3 = _cache_size(3, facts.l3_bytes)
            machine = replace(facts, name="native", l1_bytes=l1, l2_bytes=l2, l3_bytes=l3)
            cpu = llvm.get_host_cpu_name()
            return replace(_hosted(base), name="native", cpu=cpu, features=features, machine=machine)
    wanted = " or ".join(name for name, base in _TABLE.items() if base.arch == arch) or ", ".join(_TABLE)
    raise RuntimeError(
        f"graphc has no code generator for this CPU ({platform.machine()}, {llvm.get_host_cpu_name()}): "
        f"it needs {wanted}"
    )


@cache
def host_features() -> frozenset[str]:
    """LLVM's names of the CPU features this process may use.

    LLVM asks the CPU; under some hypervisors that overstates what the kernel has enabled, and the result is
    a process killed by SIGILL. So vector features must also be in the kernel's own list where there is one.
    """
    found = {name for name, has in llvm.get_host_cpu_features().items() if has}
    if _arch_of(llvm.get_process_triple()) == "aarch64":
        found |= _NEON  # part of the base architecture; some hosts report none
    kernel = _kernel_flags()
    if kernel:
        found -= {f for f in found if f.startswith(("avx", "fma", "f16c")) and not _enabled(f, kernel)}
    return frozenset(found)


def _enabled(feature: str, kernel: frozenset[str]) -> bool:
    """/proc/cpuinfo writes avx512_vnni where LLVM writes avx512vnni, but avx512bw alike."""
    return feature in kernel or feature.replace("avx512", "avx512_") in kernel or feature.startswith("avx10")


def _kernel_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    lines = [line for line in text.splitlines() if line.startswith("flags")]
    return frozenset(lines[0].partition(":")[2].split()) if lines else frozenset()


def _explicit_features(available: frozenset[str]) -> str:
    every = llvm.get_host_cpu_features()
    return ",".join(("+" if f in available else "-") + f for f in sorted(set(every) | available))


def _cache_size(level: int, default: int) -> int:
    """Bytes of this machine's cache of a level (of L1, that for data), where the kernel tells."""
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            found, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and found == str(level) and size.endswith("K"):
            return int(size[:-1]) << 10
    return default


def check_runnable(target: Target) -> None:
    """Raise RuntimeError unless code for `target` can run in this process."""
    if _arch_of(llvm.get_process_triple()) != target.arch:
        raise RuntimeError(
            f"target {target.name!r} is for {target.arch} and cannot run here; use it with `graphc dump`"
        )
    missing = target.required - host_features()
    if missing:
        raise RuntimeError(f"target {target.name!r} needs CPU features this machine lacks: {sorted(missing)}")


@cache
def target_machine(target: Target) -> llvm.TargetMachine:
    """The process's code generator for `target`."""
    return new_target_machine(target)


def new_target_machine(target: Target) -> llvm.TargetMachine:
    """A code generator for `target`: position-independent code, small code model."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    options = machine_options(target)
    return llvm.Target.from_triple(options.pop("triple")).create_target_machine(**options)


def machine_options(target: Target) -> dict[str, Any]:
    """The triple, and the arguments of LLVM's `create_target_machine`."""
    return {
        "triple": target.triple,
        "cpu": target.cpu,
        "features": target.features,
        "opt": CODEGEN_LEVEL,
        "reloc": "pic",
        "codemodel": "small",
        "jit": True,
    }
