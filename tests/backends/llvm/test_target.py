"""The target table: what is selected, and what is refused."""

from __future__ import annotations

import pytest

from graphc.backends.llvm import Backend, target
from graphc.backends.llvm.target import TARGET_NAMES, check_runnable, get_target, host_features


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch):
    monkeypatch.delenv("GRAPHC_TARGET", raising=False)


def test_native_is_explicit():
    native = get_target()
    assert native.name == native.machine.name == "native"
    assert native.cpu
    assert "+" in native.features
    assert native.required <= host_features()
    check_runnable(native)


def test_environment_selects(monkeypatch):
    monkeypatch.setenv("GRAPHC_TARGET", "x86-64-v3")
    assert get_target().name == "x86-64-v3"
    assert Backend().machine.vector_bytes == 32
    assert get_target("aarch64").machine.vector_bytes == 16  # an explicit name wins


def test_unknown_target_is_named(monkeypatch):
    monkeypatch.setenv("GRAPHC_TARGET", "pentium")
    with pytest.raises(ValueError, match=r"'pentium'.*native, x86-64-v4, x86-64-v3, aarch64"):
        get_target()


@pytest.mark.parametrize("name", TARGET_NAMES)
def test_table_is_consistent(name):
    row = get_target(name)
    for rows, vectors in row.machine.tiles:
        assert rows * vectors + vectors + 1 <= row.registers
    assert row.machine.vector_bytes % 16 == 0


def test_keys_differ():
    keys = {get_target(name).key for name in TARGET_NAMES}
    assert len(keys) == len(TARGET_NAMES)


def test_code_for_another_cpu_is_not_run(monkeypatch):
    foreign = get_target("aarch64" if get_target().arch == "x86_64" else "x86-64-v3")
    with pytest.raises(RuntimeError, match="cannot run here"):
        check_runnable(foreign)
    monkeypatch.setattr(target, "host_features", lambda: frozenset({"sse2"}))
    with pytest.raises(RuntimeError, match="needs CPU features this machine lacks"):
        check_runnable(get_target())


def test_kernel_flags_overrule_the_cpu(monkeypatch):
    """A hypervisor may show AVX-512 in CPUID while the kernel has not enabled it."""
    if get_target().arch != "x86_64":
        pytest.skip("reads /proc/cpuinfo of x86")
    monkeypatch.setattr(target, "_kernel_flags", lambda: frozenset({"sse2", "avx", "avx2", "fma", "f16c"}))
    features = target.host_features.__wrapped__()
    assert "avx512f" not in features
    assert "avx512vnni" not in features


def test_cpu_below_the_table_is_an_error(monkeypatch):
    monkeypatch.setattr(target, "host_features", lambda: frozenset({"sse2"}))
    with pytest.raises(RuntimeError, match="no code generator for this CPU"):
        target._native.__wrapped__()
