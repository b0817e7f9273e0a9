"""What a training run was like: a table with a row an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class History:
    """Numbers by epoch: `history["val_loss"]` is a column, `history.rows()` the rows, `print` the table."""

    def __init__(self) -> None:
        self.columns: dict[str, list[float]] = {}
        self.length = 0

    def add(self, row: dict[str, float]) -> None:
        """One more epoch; a column that is new, or missing now, is nan elsewhere."""
        for name in {**self.columns, **row}:
            column = self.columns.setdefault(name, [float("nan")] * self.length)
            column.append(row.get(name, float("nan")))
        self.length += 1

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, name: str) -> list[float]:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def rows(self) -> Iterator[dict[str, float]]:
        """A dict an epoch."""
        return (
            dict(zip(self.columns, values, strict=True))
            for values in zip(*self.columns.values(), strict=True)
        )

    def best(self, monitor: str, mode: str = "min") -> int:
        """The row of the best value of a column; nan never wins. ValueError if there is none."""
        sign = 1 if mode == "min" else -1
        found = [(sign * v, i) for i, v in enumerate(self.columns[monitor]) if v == v]
        if not found:
            raise ValueError(f"{monitor!r} has no value in any epoch")
        return min(found)[1]

    def __repr__(self) -> str:
        cells = [[_cell(v) for v in (name, *values)] for name, values in self.columns.items()]
        widths = [max(map(len, column)) for column in cells]
        lines = zip(*cells, strict=True)
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines)

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame (where pandas is installed)."""
        import pandas

        return pandas.DataFrame(self.columns)

    def plot(self, monitor: str = "loss") -> Any:
        """A matplotlib figure of a metric by epoch, in training and validation."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="tight")
        axes = figure.add_subplot(xlabel="epoch", ylabel=monitor)
        epochs = self.columns.get("epoch", list(range(1, self.length + 1)))
        for prefix, style in (("train_", "o--"), ("val_", "o-")):
            if prefix + monitor in self.columns:
                axes.plot(epochs, self.columns[prefix + monitor], style, label=prefix + monitor)
        axes.legend()
        axes.grid(alpha=0.3)
        return figure


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"
