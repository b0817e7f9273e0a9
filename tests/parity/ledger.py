"""What is allowed to fail: cases outside the contract (expected.txt) and gaps still open (open.txt).

Both files hold lines of the same form, `subject | check | dtypes | count | text | reason`. An entry accounts
for exactly `count` failures of `subject` whose check and dtype match (`*`: any) and whose message contains
`text`; any other number, more or fewer, fails the test. So an unexpected pass fails, and open gaps can only
be closed by taking them off the list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Failure:
    """One check of one sample that graphc does not pass."""

    check: str
    dtype: str
    index: int
    message: str

    def __str__(self) -> str:
        return f"{self.check} {self.dtype} sample {self.index}: {self.message}"


@dataclass(frozen=True)
class Entry:
    """One line of a list."""

    subject: str
    check: str
    dtypes: str
    count: int
    text: str
    reason: str
    open: bool

    def covers(self, failure: Failure) -> bool:
        """Whether a failure of this entry's subject is one that it accounts for."""
        return (
            (self.check in ("*", failure.check) or failure.check == "native")
            and (self.dtypes == "*" or failure.dtype in self.dtypes.split(","))
            and self.text in failure.message
        )


def _read(name: str) -> list[Entry]:
    entries = []
    for line in (HERE / name).read_text().splitlines():
        if line and not line.startswith("#"):
            subject, check, dtypes, count, text, reason = (part.strip() for part in line.split(" | "))
            entries.append(Entry(subject, check, dtypes, int(count), text, reason, name == "open.txt"))
    return entries


ENTRIES = [*_read("expected.txt"), *_read("open.txt")]


@dataclass
class Account:
    """Failures of one subject, settled against the lists.

    problems  what the test reports; empty if every failure is accounted for and no entry is stale
    expected, open  (check, dtype, index) of samples that fail as listed
    """

    problems: list[str]
    expected: set[tuple[str, int]]
    open: set[tuple[str, int]]


def settle(subject: str, failures: Sequence[Failure], counted: bool = True) -> Account:
    """Account for the failures of `subject`; `counted=False` for a run on a part of the samples."""
    entries = [e for e in ENTRIES if e.subject == subject]
    counts: Counter[Entry] = Counter()
    found = Account([], set(), set())
    for failure in failures:
        entry = next((e for e in entries if e.covers(failure)), None)
        if entry is None:
            found.problems.append(str(failure))
        else:
            counts[entry] += 1
            (found.open if entry.open else found.expected).add((failure.dtype, failure.index))
    for e in entries:
        if counted and counts[e] != e.count:
            found.problems.append(
                f"{'open.txt' if e.open else 'expected.txt'} counts {e.count} failures of {subject} "
                f"({e.check}, {e.dtypes}, {e.text!r}) and there are {counts[e]}: correct the list"
            )
    return found


def shorten(problems: Sequence[str]) -> str:
    """A readable failure report."""
    rest = f"\n... and {len(problems) - 12} more" if len(problems) > 12 else ""
    return "\n".join(problems[:12]) + rest
