"""Batches of sequences of different lengths: padding, and PackedSequence.

PyTorch's packed form puts the elements that exist side by side, step by step; its size is the sum of the
lengths, so that a program for it fits one batch only. Here a packed sequence is kept padded, with the lengths
beside it as data, which is what the recurrent loops read: one program serves all batches of a padded size.
`data`, `batch_sizes` and the indices are made when somebody looks at them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.gather import index_select
from graphc.frontend.functions.joining import stack
from graphc.frontend.functions.slicing import narrow, pad_constant
from graphc.frontend.functions.sorting import argsort
from graphc.frontend.modes import MODE
from graphc.frontend.nodes import number, spread
from graphc.frontend.tensor import Tensor, apply, from_array, is_concrete, needs_grad
from graphc.frontend.tree import Branch
from graphc.ir.node import Node
from graphc.ir.types import int64
from graphc.nn.functional.common import need_tensors
from graphc.nn.functional.recurrent import length_mask

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]

_UNSORTED = (
    "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
    "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement"
)
_EMPTY = "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"


def known(tensor: Tensor) -> np.ndarray | None:
    """The values of a tensor; None if they differ between calls of what is being traced."""
    return value(tensor) if MODE.trace is None or is_concrete(tensor) else None


class PackedSequence(Branch):
    """A batch of sequences of different lengths, as `pack_padded_sequence` makes it and RNNs take it.

    data              the elements, longest sequence first: all first steps, all second steps, ...
    batch_sizes       int64 [longest]: how many sequences have each step
    sorted_indices    int64 [batch] or None: the order in which sequences stand in `data`
    unsorted_indices  its inverse

    Make one yourself of `data` and `batch_sizes` only where the values come from another one.
    """

    _fields = ("data", "batch_sizes", "sorted_indices", "unsorted_indices")

    def __init__(
        self,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> None:
        if batch_sizes is None:
            if not isinstance(data, (list, tuple)) or len(data) != 2:
                raise fail(AssertionError, "Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        need_tensors("PackedSequence", data, batch_sizes)
        self._data: Tensor | None = data
        self._batch_sizes: Tensor | None = batch_sizes
        self._order = sorted_indices
        self._place = invert_permutation(sorted_indices) if unsorted_indices is None else unsorted_indices
        self._in_order = self._place is None
        self._padded: Tensor | None = None
        self._trace = MODE.trace
        self._rows = _rows_by_step(batch_sizes, self._place)
        self._lengths = from_array((self._rows < len(data)).sum(0))
        self._longest: int | None = len(self._rows)

    @classmethod
    def of_padded(
        cls, padded: Tensor, lengths: Tensor, in_order: bool, longest: int | None
    ) -> PackedSequence:
        """Of `padded` [steps, batch, *], which is zero beyond `lengths` [batch].

        in_order: the longest comes first already; longest: the largest length, None if not known yet
        """
        self = object.__new__(cls)
        self._data = self._batch_sizes = self._order = self._place = None
        self._padded, self._lengths, self._in_order, self._longest = padded, lengths, in_order, longest
        self._trace = MODE.trace
        return self

    def _keep(self, field: str, value: Tensor | None) -> Any:
        """`value`, and note it; but not what a trace makes of sequences from outside."""
        if MODE.trace is self._trace:
            setattr(self, field, value)
        return value

    def with_padded(self, padded: Tensor) -> PackedSequence:
        """The same sequences with other elements, [steps, batch, *]; nothing beyond the lengths counts."""
        made = PackedSequence.of_padded(padded, self.lengths, self._in_order, self.longest)
        made._order, made._place, made._batch_sizes = self._order, self._place, self._batch_sizes
        return made

    # ------------------------------------------------------------- the padded form

    @property
    def lengths(self) -> Tensor:
        """int64 [batch], in the order in which the sequences were given."""
        return self._lengths

    @property
    def longest(self) -> int | None:
        """The largest length; None inside a trace that is for all lengths."""
        if self._longest is None:
            lengths = known(self.lengths)
            self._longest = None if lengths is None else int(lengths.max())
        return self._longest

    @property
    def padded(self) -> Tensor:
        """[steps, batch, *] in the order in which the sequences were given; steps are `longest` or more."""
        if self._padded is not None:
            return self._padded
        assert self._data is not None
        padded = apply("PadPackedSequenceBackward0", _rows_or_zero, self._data, from_array(self._rows))
        return self._keep("_padded", padded)

    def parts(self) -> tuple[Tensor | None, ...]:
        """The tensors it is made of: padded, lengths, and the order of the sequences and back."""
        return (self.padded, self.lengths, self._order, self._place)

    def with_parts(self, parts: list[Any]) -> PackedSequence:
        """The same of other tensors."""
        padded, lengths, order, place = parts
        made = PackedSequence.of_padded(padded, lengths, self._in_order, self._longest)
        made._order, made._place = order, place
        return made

    def form(self) -> Any:
        """What compiled code may rely on besides shapes: whether lengths fall, and the longest."""
        return self._in_order, self.longest

    # ------------------------------------------------------------- PyTorch's form

    @property
    def sorted_indices(self) -> Tensor | None:
        """The order in which the sequences stand in `data`; None if they stand as they were given."""
        if self._order is not None or self._in_order:
            return self._order
        return self._keep("_order", argsort(self.lengths, 0, True, True))

    @property
    def unsorted_indices(self) -> Tensor | None:
        """Where in `data` each of the given sequences stands; None if they stand as they were given."""
        if self._place is not None or self._in_order:
            return self._place
        return self._keep("_place", invert_permutation(self.sorted_indices))

    @property
    def batch_sizes(self) -> Tensor:
        """int64 [longest]: how many sequences have each step."""
        if self._batch_sizes is not None:
            return self._batch_sizes
        lengths = _need_known(self._lengths, "batch_sizes")
        sizes = (np.arange(lengths.max())[:, None] < lengths[None]).sum(1)
        return self._keep("_batch_sizes", from_array(sizes.astype(np.int64)))

    @property
    def data(self) -> Tensor:
        """[sum of the lengths, *]: all first steps, then all second steps, ..."""
        if self._data is not None:
            return self._data
        padded, sizes = self.padded, _need_known(self.batch_sizes, "data")
        batch = padded.shape[1]
        order = np.arange(batch)
        if self.sorted_indices is not None:
            order = _need_known(self.sorted_indices, "data")
        rows = np.concatenate([step * batch + order[:size] for step, size in enumerate(sizes)])
        flat = padded.reshape(-1, *padded.shape[2:])  # type: ignore[attr-defined]
        return self._keep("_data", index_select(flat, 0, from_array(rows.astype(np.int64))))

    # ----------------------------------------------------------- as a named tuple

    def __iter__(self) -> Iterator[Tensor | None]:
        return iter([getattr(self, name) for name in self._fields])

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, index: Any) -> Any:
        return tuple(self)[index]

    def __repr__(self) -> str:
        return f"PackedSequence({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    def _asdict(self) -> dict[str, Tensor | None]:
        return dict(zip(self._fields, self, strict=True))

    def _replace(self, **fields: Any) -> PackedSequence:
        return type(self)(**{**self._asdict(), **fields})

    # ------------------------------------------------------------------ conversion

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With elements of another dtype (or on a device: there is one)."""
        return self.with_padded(self.padded.to(*args, **kwargs))

    def float(self) -> PackedSequence:
        """With float32 elements."""
        return self.with_padded(self.padded.float())

    def double(self) -> PackedSequence:
        """With float64 elements."""
        return self.with_padded(self.padded.double())

    def long(self) -> PackedSequence:
        """With int64 elements."""
        return self.with_padded(self.padded.long())

    def int(self) -> PackedSequence:
        """With int32 elements."""
        return self.with_padded(self.padded.int())

    def cpu(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Itself: there is one device."""
        return self

    def pin_memory(self) -> PackedSequence:
        """Itself: there is one kind of memory."""
        return self

    @property
    def is_cuda(self) -> bool:
        """False: there is no other device."""
        return False

    def is_pinned(self) -> bool:
        """False: there is no other device."""
        return False


def _need_known(tensor: Tensor, what: str) -> np.ndarray:
    """The values of lengths and indices, on which the shape of packed data depends."""
    found = known(tensor)
    if found is None:
        assert MODE.trace is not None
        raise MODE.trace.needs_value(
            f"PackedSequence: the shape of {what} depends on the values of the lengths, which differ between "
            "calls; inside a traced function give the lengths as a list of ints (a program for each), or use "
            "RNN layers and pad_packed_sequence(..., total_length=...), which need no values"
        )
    return found


def _rows_by_step(batch_sizes: Tensor, place: Tensor | None) -> np.ndarray:
    """Which row of packed data each step of each sequence is, int64 [longest, batch].

    The number of rows where a sequence has no such step.
    """
    sizes = _need_known(batch_sizes, "the sequences")
    first, column = np.cumsum(sizes) - sizes, np.arange(sizes[0])[None]
    rows = np.where(column < sizes[:, None], first[:, None] + column, sizes.sum())
    return rows if place is None else rows[:, _need_known(place, "the sequences")]


def _rows_or_zero(data: Node, table: Node) -> Node:
    """Rows of `data` [n, *] at the indices of `table`; zeros where the index is n."""
    low = (0,) * data.type.rank
    return ops.take(ops.pad(data, low, (1, *low[1:])), table, 0)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation, int64 [n], that undoes this one; None of None."""
    if permutation is None:
        return None
    array = known(permutation)
    return argsort(permutation, 0) if array is None else from_array(np.argsort(array).astype(np.int64))


# ------------------------------------------------------------------------- packing


def _lengths_tensor(lengths: Any, batch: int) -> Tensor:
    """The lengths as int64 [batch]; RuntimeError for another shape."""
    if not isinstance(lengths, Tensor):
        lengths = from_array(np.asarray(lengths).astype(np.int64))
    if lengths.ndim != 1:
        raise fail(
            RuntimeError, f"'lengths' argument should be a 1D CPU int64 tensor, but got {describe(lengths)}"
        )
    if lengths.shape[0] != batch:
        raise fail(
            RuntimeError,
            f"Expected `len(lengths)` to be equal to batch_size, but got {lengths.shape[0]} "
            f"(batch_size={batch})",
        )
    return lengths if lengths.dtype is int64 else lengths.long()


def _check_lengths(lengths: np.ndarray, steps: int, enforce_sorted: bool) -> None:
    if enforce_sorted and (np.diff(lengths) > 0).any():
        raise fail(RuntimeError, f"{_UNSORTED} (lengths {lengths.tolist()})")
    if lengths.min() <= 0:
        raise fail(RuntimeError, f"{_EMPTY} (lengths {lengths.tolist()})")
    if lengths.max() > steps:
        raise fail(
            RuntimeError,
            f"pack_padded_sequence: no length may be larger than the {steps} steps of the input, got "
            f"{lengths.tolist()}",
        )


def _checked_lengths(lengths: Node, steps: int, enforce_sorted: bool) -> Node:
    """Lengths that are checked when the program runs."""
    message = f"pack_padded_sequence: lengths must be at least 1 and at most {steps}, the steps of the input"
    lengths = ops.check_index(lengths, 1, steps + 1, message)
    if not enforce_sorted or lengths.shape[0] < 2:
        return lengths
    count = lengths.shape[0]
    before, after = ops.slice_axis(lengths, 0, 0, count - 1), ops.slice_axis(lengths, 0, 1, count)
    growth = ops.check_index(ops.sub(after, before), -steps, 1, f"pack_padded_sequence: {_UNSORTED}")
    return ops.concat([ops.slice_axis(lengths, 0, 0, 1), ops.add(before, growth)], 0)


def _masked(x: Node, lengths: Node, value: Any) -> Node:
    """x [steps, batch, *] with `value` beyond the lengths."""
    mask = length_mask(lengths, x.shape[0])
    alive = spread(mask, x.shape, tuple(range(2, x.type.rank)))
    return ops.select(alive, x, number(value, x.dtype, x.shape))


def _enough_steps(longest: int, steps: int) -> int:
    """`longest`, rounded up to a few leading bits: batches of similar lengths share a program."""
    grain = 1 << max(0, longest.bit_length() - 4)
    return min(steps, -(-longest // grain) * grain)


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """The sequences of a padded batch [steps, batch, *] (batch_first: [batch, steps, *]), packed.

    lengths         ints, or an integer tensor [batch]
    enforce_sorted  the lengths must not increase; with False they may have any order

    RuntimeError for lengths that are not sorted, not positive, larger than `steps`, or not one a sequence.
    Inside a traced function lengths may be an argument; they are then checked when the program runs.
    """
    need_tensors("pack_padded_sequence", input)
    if input.ndim < 2:
        raise fail(IndexError, f"pack_padded_sequence: needs [steps, batch, ...], got {describe(input)}")
    padded = input.transpose(0, 1) if batch_first else input  # type: ignore[attr-defined]
    if padded.numel() == 0:  # type: ignore[attr-defined]
        raise fail(RuntimeError, f"Cannot pack empty tensors. (given {describe(input)})")
    steps = padded.shape[0]
    lengths = _lengths_tensor(lengths, padded.shape[1])
    array, longest = known(lengths), None
    if array is not None:
        _check_lengths(array, steps, enforce_sorted)
        longest = int(array.max())
        padded = narrow(padded, 0, 0, _enough_steps(longest, steps))
    else:
        lengths = apply("", lambda n: _checked_lengths(n, steps, enforce_sorted), lengths)
    padded = apply("PackPaddedSequenceBackward0", lambda x, n: _masked(x, n, 0), padded, lengths)
    return PackedSequence.of_padded(padded, lengths, enforce_sorted, longest)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(the sequences [steps, batch, *], padded with `padding_value`; their lengths, int64 [batch]).

    steps is the largest length, or `total_length`. ValueError if that is less than the largest length.
    Inside a traced function that takes the lengths as an argument, `total_length` is needed.
    """
    padded, lengths, longest = sequence.padded, sequence.lengths, sequence.longest
    if total_length is None:
        total_length = longest if longest is not None else int(_need_known(lengths, "the result").max())
    elif longest is None:
        limit, message = total_length + 1, f"pad_packed_sequence: a length is not at most {total_length=}"
        lengths = apply("", lambda n: ops.check_index(n, 1, limit, message), lengths)
    elif total_length < longest:
        raise fail(
            ValueError,
            "Expected total_length to be at least the length of the longest sequence in input, but got "
            f"total_length={total_length} and max sequence length being {longest}",
        )

    def build(x: Node, n: Node) -> Node:
        steps, rest = x.shape[0], (0,) * (x.type.rank - 1)
        if steps < total_length:
            x = ops.pad(x, (0, *rest), (total_length - steps, *rest))
        x = _masked(ops.slice_axis(x, 0, 0, total_length), n, padding_value)
        return ops.transpose(x, (1, 0, *range(2, x.type.rank))) if batch_first else x

    return apply("PadPackedSequenceBackward0", build, padded, lengths), lengths


# ------------------------------------------------------------------ lists of tensors


def pad_sequence(
    sequences: Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Tensors [length, *] of one dtype as [longest, batch, *] (batch_first: [batch, longest, *]).

    RuntimeError for no tensors, or tensors that differ in more than their lengths.
    """
    if padding_side not in ("left", "right"):
        raise fail(RuntimeError, f"Expected padding_side to be one of left or right, but got {padding_side}.")
    if not isinstance(sequences, Iterable):
        raise fail(
            RuntimeError,
            "pad_sequence: Expected iterable for input sequences, but got arg of type: "
            f"{type(sequences).__name__}",
        )
    items = list(sequences)
    if not items:
        raise fail(RuntimeError, "received an empty list of sequences")
    need_tensors("pad_sequence", *items)
    rest, dtype = items[0].shape[1:], items[0].dtype
    if any(t.ndim == 0 or t.shape[1:] != rest or t.dtype is not dtype for t in items):
        raise fail(
            RuntimeError,
            f"pad_sequence: sequences may differ in their first dim only, got {describe(*items)}",
        )
    longest = max(t.shape[0] for t in items)
    if all(is_concrete(t) and not needs_grad(t) for t in items):
        return _pad_now(items, longest, batch_first, padding_value, padding_side == "left")
    zero = [0] * len(rest)
    padded = []
    for t in items:
        gap = longest - t.shape[0]
        low, high = (gap, 0) if padding_side == "left" else (0, gap)
        padded.append(pad_constant(t, [low, *zero], [high, *zero], padding_value))
    return stack(padded, 0 if batch_first else 1)


def _pad_now(items: Sequence[Tensor], longest: int, batch_first: bool, fill: float, left: bool) -> Tensor:
    """Of values that are there, without a program for these lengths: this is how batches are collated."""
    arrays = [value(t) for t in items]
    shape = (len(items), longest, *arrays[0].shape[1:])
    out = np.full(shape, fill, arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[longest - len(array) if left else 0 :][: len(array)] = array
    return from_array(out if batch_first else out.swapaxes(0, 1))


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """The inverse of `pad_sequence`: the sequences [length, *] of a padded batch."""
    need_tensors("unpad_sequence", padded_sequences)
    batch = padded_sequences.shape[0 if batch_first else 1]
    counts = _need_known(_lengths_tensor(lengths, batch), "the sequences")
    by_row = padded_sequences if batch_first else padded_sequences.transpose(0, 1)  # type: ignore[attr-defined]
    return [narrow(row, 0, 0, int(n)) for row, n in zip(by_row.unbind(0), counts, strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors [length, *], packed; the longest first unless enforce_sorted=False."""
    lengths = [t.shape[0] for t in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences [length, *] of a packed batch."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
