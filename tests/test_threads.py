"""How many threads: affinity, container quota, environment, the user's word."""

from __future__ import annotations

import os

import pytest

from graphc import threads
from graphc.threads import available_cpus, cgroup_quota, get_num_threads, set_num_threads


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(threads, "_chosen", None)
    monkeypatch.delenv("GRAPHC_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads._default.cache_clear()
    yield
    threads._default.cache_clear()


def test_default_is_what_is_available():
    assert get_num_threads() == available_cpus() >= 1


def test_user_decides(monkeypatch):
    set_num_threads(7)
    assert get_num_threads() == 7
    for bad in (0, -1, 1000):
        with pytest.raises(ValueError, match="from 1 to 256"):
            set_num_threads(bad)
    for bad in ("2", 2.0, True):
        with pytest.raises(TypeError, match="expects an int"):
            set_num_threads(bad)
    assert get_num_threads() == 7


def test_environment(monkeypatch):
    monkeypatch.setenv("GRAPHC_THREADS", "5")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert get_num_threads() == 5


def test_openmp_limit_only_lowers(monkeypatch):
    monkeypatch.setattr(threads, "available_cpus", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert get_num_threads() == 4


@pytest.mark.parametrize("text", ["64", "lots"])
def test_openmp_limit_never_raises_the_count(monkeypatch, text):
    monkeypatch.setattr(threads, "available_cpus", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert get_num_threads() == 8


def test_bad_setting_is_named(monkeypatch):
    monkeypatch.setenv("GRAPHC_THREADS", "many")
    with pytest.raises(ValueError, match="GRAPHC_THREADS='many'"):
        get_num_threads()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_quota_of_version_2(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("0::/user/job\n")
    assert cgroup_quota(membership, tmp_path) is None
    write(tmp_path / "user/job/cpu.max", "max 100000\n")
    assert cgroup_quota(membership, tmp_path) is None
    write(tmp_path / "user/cpu.max", "250000 100000\n")
    assert cgroup_quota(membership, tmp_path) == 2.5
    write(tmp_path / "user/job/cpu.max", "150000 100000\n")
    assert cgroup_quota(membership, tmp_path) == 1.5


def test_quota_seen_from_inside_a_container(tmp_path):
    """The path in /proc/self/cgroup does not exist below the container's own root."""
    membership = tmp_path / "cgroup"
    membership.write_text("0::/../../kubepods/pod1\n")
    write(tmp_path / "cpu.max", "800000 100000")
    assert cgroup_quota(membership, tmp_path) == 8.0


def test_quota_of_version_1(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("4:memory:/x\n3:cpu,cpuacct:/docker/abc\n")
    write(tmp_path / "cpu,cpuacct/cpu.cfs_quota_us", "-1")
    write(tmp_path / "cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert cgroup_quota(membership, tmp_path) is None
    write(tmp_path / "cpu,cpuacct/cpu.cfs_quota_us", "400000\n")
    assert cgroup_quota(membership, tmp_path) == 4.0


def test_quota_rounds_down_to_at_least_one(monkeypatch):
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for quota, expected in ((0.5, 1), (1.9, 1), (1e6, cpus), (None, cpus)):
        monkeypatch.setattr(threads, "cgroup_quota", lambda quota=quota: quota)
        assert available_cpus() == min(expected, 256)
