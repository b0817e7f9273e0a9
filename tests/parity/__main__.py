"""`python -m tests.parity [--list] [op ...]`: what fails, most frequent first, with examples.

`--list` prints the failures as lines of open.txt instead.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter

import graphc

from . import adapters
from .ledger import Failure, settle
from .survey import LIMIT, survey, thoroughly


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    listing = "--list" in names
    names = [n for n in names if n != "--list"]
    graphc.set_backend("reference")
    total, rows, missing = 0, [], []
    for name in names or adapters.CONTRACT:
        try:
            count, failures = survey(name, LIMIT, thoroughly)
        except AttributeError:
            missing.append(name)
            continue
        total += count
        unlisted = [f for f in failures if not settle(name, [f], counted=False).expected]
        if unlisted:
            rows.append((len({(f.dtype, f.index) for f in unlisted}), count, name, unlisted))
    rows.sort(key=lambda row: -row[0])
    if listing:
        _lines(rows, missing)
        return
    for failed, count, name, failures in rows:
        print(f"{name}: {failed} of {count}")
        _examples(failures)
    print(f"{sum(r[0] for r in rows)} of {total} samples fail; missing: {' '.join(missing) or 'nothing'}")


def _lines(rows: list[tuple[int, int, str, list[Failure]]], missing: list[str]) -> None:
    for *_, name, failures in rows:
        for (check, dtype), count in Counter((f.check, f.dtype) for f in failures).items():
            print(f"{name} | {check} | {dtype} | {count} |  | open")
    for name in missing:
        print(f"{name} | lazy | missing | 1 |  | not there yet")


def _examples(failures: list[Failure]) -> None:
    counts = Counter((f.check, f.message) for f in failures)
    shown: dict[str, Failure] = {}
    for f in failures:
        shown.setdefault(f"{f.check} {f.message[:30]}", f)
    for f in list(shown.values())[:6]:
        print(f"    {counts[f.check, f.message]:4}  {f}")


if __name__ == "__main__":
    main(sys.argv[1:])
