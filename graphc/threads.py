"""How many threads compiled programs use.

The default is what this process may really use: its CPU affinity, cut down to the container's CPU quota,
and to ``OMP_NUM_THREADS`` if the user limits other libraries that way. ``GRAPHC_THREADS`` or
`set_num_threads` decide.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

MAX_THREADS = 256
_chosen: int | None = None


def set_num_threads(count: int) -> None:
    """Use `count` threads from the next program run on; results do not depend on it.

    Raises ValueError unless 1 <= count <= 256, TypeError unless it is an int.
    """
    global _chosen
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"set_num_threads expects an int, got {type(count).__name__}")
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(f"set_num_threads expects a number from 1 to {MAX_THREADS}, got {count}")
    _chosen = count


def get_num_threads() -> int:
    """Threads the next program run uses, the calling thread included."""
    return _chosen if _chosen is not None else _default()


@cache
def _default() -> int:
    forced = _from_environment("GRAPHC_THREADS")
    if forced is not None:
        return forced
    count = available_cpus()
    limit = _from_environment("OMP_NUM_THREADS")
    return count if limit is None else min(count, limit)


def _from_environment(name: str) -> int | None:
    """A positive number in an environment variable; None if unset.

    OMP_NUM_THREADS may be a list, one number a nesting level: the first counts. Another program's
    malformed OMP_NUM_THREADS is ignored; a malformed GRAPHC_THREADS is the user's mistake: ValueError.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    first = text.split(",")[0].strip()
    if first.isdecimal() and 1 <= int(first) <= MAX_THREADS:
        return int(first)
    if name.startswith("GRAPHC_"):
        raise ValueError(f"{name}={text!r}: expected a number from 1 to {MAX_THREADS}")
    return None


def available_cpus() -> int:
    """CPUs this process may keep busy: affinity, and the cgroup's CPU quota rounded down (at least 1)."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = cgroup_quota()
    if quota is not None:
        count = min(count, int(quota))
    return max(1, min(count, MAX_THREADS))


def cgroup_quota(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """CPUs granted by the tightest cgroup (version 2 or 1) that holds this process; None if unlimited.

    A container usually sees its own group at `root` while `membership` names a path outside: both are
    tried.
    """
    quotas: list[float] = []
    for line in _read(membership).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            quotas += _quotas_upward(root, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                quotas += _quotas_upward(root / name, path, _quota_v1)
    return min(quotas, default=None)


def _quotas_upward(root: Path, path: str, read) -> list[float]:
    """Quotas of the group at `path` under `root` and of all groups around it."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    groups = [root.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]
    return [quota for quota in map(read, groups) if quota is not None]


def _quota_v2(group: Path) -> float | None:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota_v1(group: Path) -> float | None:
    return _ratio(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    quota, period = quota.strip(), period.strip()
    if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
        return int(quota) / int(period)
    return None  # "max", or -1, or no such file


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
