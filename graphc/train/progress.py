"""A progress bar for an epoch: tqdm's where it is installed and somebody looks, else a line at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Any


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm


class Progress:
    """Counts batches under one title; `show` puts numbers behind the bar, `finish` leaves them in a line."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        self.title, self.quiet = title, quiet
        tqdm = None if quiet or not sys.stderr.isatty() else _tqdm()
        self.bar = None if tqdm is None else tqdm(desc=title, unit="batch", leave=False, total=0)

    def of(self, data: Iterable[Any]) -> Iterator[Any]:
        """The data, counted."""
        if self.bar is not None and isinstance(data, Sized):
            self.bar.total += len(data)
        for item in data:
            yield item
            if self.bar is not None:
                self.bar.update()

    def show(self, numbers: Mapping[str, float]) -> None:
        """Numbers behind the bar."""
        if self.bar is not None:
            self.bar.set_postfix({k: f"{v:.4f}" for k, v in numbers.items()}, refresh=False)

    def finish(self, numbers: Mapping[str, float]) -> None:
        """Leave one line."""
        if self.bar is not None:
            self.bar.close()
        if not self.quiet:
            print(f"{self.title}: " + "  ".join(f"{k} {v:.4f}" for k, v in numbers.items()), file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
