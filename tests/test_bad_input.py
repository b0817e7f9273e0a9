"""Mistakes: each is refused with a message that says what, where and with which shapes, and changes nothing.

Every mistake is made in a training step that has run before, lazily and compiled; then the same step must
go on as if nothing had happened.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import cache, nn, pipeline, program_cache
from graphc.cache import CacheWarning, Store

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).name


def floats(*shape: int, seed: int = 0) -> graphc.Tensor:
    return graphc.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def labels(*values: int) -> graphc.Tensor:
    return graphc.from_numpy(np.array(values, np.int64))


def place(mark: str) -> str:
    """`file:line` of the line of this file that ends in the comment `# <mark>`."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    return f"{HERE}:{number}"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.3)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        x = self.conv(x)  # convolution
        x = self.drop(self.norm(x).relu())
        return self.head(x)  # linear


class Training:
    """A model, an optimizer with state, and a step of them."""

    GOOD = (floats(3, 1, 4, 4), labels(1, 2, 3))

    def __init__(self, compiled: bool) -> None:
        graphc.manual_seed(0)
        self.model, self.criterion = Net(), nn.CrossEntropyLoss()
        self.optimizer = graphc.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.step = graphc.compile(self.plain) if compiled else self.plain
        self.compiled = compiled
        self.step(*self.GOOD).item()

    def plain(self, x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        loss = self.criterion(self.model(x), y)  # loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> dict[str, np.ndarray]:
        """Copies of everything that a step changes. (Lazily, as in PyTorch, layers before the mistake have
        run: running statistics and the generator have moved on.)"""
        found = {f"p.{k}": p.detach().numpy().copy() for k, p in self.model.named_parameters()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            found |= {
                f"o.{i}.{k}": np.array(getattr(v, "numpy", lambda v=v: v)()) for k, v in moments.items()
            }
        if self.compiled:
            found |= {f"b.{k}": b.numpy().copy() for k, b in self.model.named_buffers()}
            grads = [(k, p.grad) for k, p in self.model.named_parameters() if p.grad is not None]
            found |= {f"g.{k}": g.numpy().copy() for k, g in grads}
            found["generator"] = graphc.get_rng_state().numpy().copy()
        return found


def assert_unchanged(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> None:
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


@pytest.fixture(params=[False, True], ids=["lazily", "compiled"])
def training(request: pytest.FixtureRequest) -> Training:
    return Training(request.param)


Mistake = tuple[graphc.Tensor, graphc.Tensor, type[Exception], str, list[str]]
GOOD_X, GOOD_Y = Training.GOOD
MISTAKES: dict[str, Mistake] = {
    "channel count": (
        *(floats(3, 2, 4, 4), GOOD_Y, RuntimeError, "convolution"),
        ["conv2d", "[4, 1, 3, 3]", "[3, 2, 4, 4]", "expected", "1 channels, but got 2", "in Net.conv"],
    ),
    "number of features": (
        *(floats(3, 1, 5, 5), GOOD_Y, RuntimeError, "linear"),
        ["linear: mat1 and mat2 shapes cannot be multiplied (3x100 and 64x10)", "in Net.head.1"],
    ),
    "number of dimensions": (
        *(floats(4), GOOD_Y, RuntimeError, "convolution"),
        ["conv2d", "[4]", "3D (unbatched) or 4D (batched)", "in Net.conv"],
    ),
    "double input": (
        *(floats(3, 1, 4, 4).double(), GOOD_Y, RuntimeError, "convolution"),
        ["conv2d: Input type (float64) and weight type (float32) should be the same", "in Net.conv"],
    ),
    "integer input": (
        *(graphc.ones(3, 1, 4, 4, dtype=graphc.int64), GOOD_Y, RuntimeError, "convolution"),
        ["conv2d: Input type (int64) and weight type (float32)", "in Net.conv"],
    ),
    "dtype of labels": (
        *(GOOD_X, GOOD_Y.int(), RuntimeError, "loss"),
        ["cross_entropy: expected scalar type Long but found Int", "in CrossEntropyLoss"],
    ),
    "number of labels": (
        *(GOOD_X, labels(1, 2), ValueError, "loss"),
        ["cross_entropy", "input batch_size (3)", "target batch_size (2)", "float32[3, 10], int64[2]"],
    ),
    "label too large": (
        *(GOOD_X, labels(1, 12, 3), IndexError, "loss"),
        ["cross_entropy: Target is out of bounds", "less than 10", "got 12 at [1]", "in CrossEntropyLoss"],
    ),
    "label negative": (
        *(GOOD_X, labels(1, 2, -3), IndexError, "loss"),
        ["cross_entropy: Target is out of bounds", "got -3 at [2]", "in CrossEntropyLoss"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_batch(training: Training, name: str) -> None:
    x, y, error, mark, parts = MISTAKES[name]
    before = training.state()
    with pytest.raises(error) as caught:
        training.step(x, y)
    for part in [*parts, place(mark)]:
        assert part in str(caught.value)
    assert_unchanged(before, training.state())
    losses = []
    for each in (training, Training(training.compiled)):
        graphc.manual_seed(5)
        losses.append(each.step(*Training.GOOD).item())
    assert losses[0] == losses[1]


def test_bad_batch_first(training: Training) -> None:
    """A wrong label in the very first step, when there is no optimizer state yet."""
    fresh = Training.__new__(Training)
    graphc.manual_seed(0)
    fresh.model, fresh.criterion, fresh.compiled = Net(), nn.CrossEntropyLoss(), False
    fresh.optimizer = graphc.optim.AdamW(fresh.model.parameters(), lr=1e-2)
    step = graphc.compile(fresh.plain) if training.compiled else fresh.plain
    with pytest.raises(IndexError, match="Target is out of bounds"):
        step(GOOD_X, labels(1, 10, 0))
    graphc.manual_seed(0)
    for (name, p), expected in zip(fresh.model.named_parameters(), Net().parameters(), strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), expected.detach().numpy(), err_msg=name)
    assert np.isfinite(step(*Training.GOOD).item())


def test_index_out_of_range() -> None:
    """Known indices are looked at at once; compiled code checks them."""

    def rows(table: graphc.Tensor, index: graphc.Tensor) -> graphc.Tensor:
        return table[index]  # gather

    for function in (rows, graphc.compile(rows)):
        with pytest.raises(IndexError) as caught:
            function(floats(2, 3), labels(0, 7))
        for part in ("index", "7", "out of bounds for dimension 0 with size 2", place("gather")):
            assert part in str(caught.value)


# ------------------------------------------------------------------------ shapes


def multiply(a: graphc.Tensor, b: graphc.Tensor) -> graphc.Tensor:
    return a @ b  # product


@pytest.mark.parametrize("function", [multiply, graphc.compile(multiply)], ids=["lazily", "compiled"])
def test_matmul_of_wrong_shapes(function: Callable[..., graphc.Tensor]) -> None:
    a, b = floats(2, 3), floats(4, 5)
    with pytest.raises(RuntimeError) as caught:
        function(a, b)
    for part in ("matmul: mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", place("product")):
        assert part in str(caught.value)
    assert function(a, floats(3, 1)).shape == (2, 1)


# ----------------------------------------------------------------------- tracing


class Branch(nn.Module):
    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        if x.sum() > 0:  # branch
            return x
        return -x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Branch()

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return self.inner(x)


def test_if_on_a_traced_tensor() -> None:
    model = Outer()
    compiled = graphc.compile(model)
    with pytest.raises(graphc.TracerError) as caught:
        compiled(floats(3))
    for part in ("bool[]", "Python's if", "graphc.where", "'Outer'", place("branch"), "in Outer.inner"):
        assert part in str(caught.value)
    assert compiled.compilations == 0
    assert model(floats(3)).shape == (3,)  # outside a trace it has a value


def test_value_of_a_traced_tensor() -> None:
    for read in (float, lambda t: t.item(), lambda t: t.numpy()):
        with pytest.raises(graphc.TracerError, match="is not known while tracing"):
            graphc.compile(lambda x, read=read: x * read(x.sum()))(floats(3))


def test_tensor_of_another_trace() -> None:
    kept: list[graphc.Tensor] = []

    def leaks(x: graphc.Tensor) -> graphc.Tensor:
        kept.append(x * 2)  # leaked
        return x + 1

    x = floats(3)
    np.testing.assert_array_equal(graphc.compile(leaks)(x).numpy(), x.numpy() + 1)
    uses: list[Callable[[], Any]] = [
        lambda: kept[0].numpy(),
        lambda: repr(kept[0]),
        lambda: graphc.compile(lambda y: y + kept[0])(x),
    ]
    for use in uses:
        with pytest.raises(graphc.TracerError) as caught:
            use()
        for part in ("leaked tracer", "'leaks'", place("leaked"), "return it from the traced function"):
            assert part in str(caught.value)


def test_failed_trace_restores_state() -> None:
    """What the function did to tensors from outside before it failed is undone."""
    counter, weight = graphc.zeros(3), floats(3).requires_grad_()

    def fails(x: graphc.Tensor) -> graphc.Tensor:
        counter.add_(1)
        (weight * x).sum().backward()
        return x @ floats(4, 5)

    compiled = graphc.compile(fails)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        compiled(floats(2, 3))
    assert counter.tolist() == [0, 0, 0]
    assert weight.grad is None
    assert compiled.compilations == 0


# ---------------------------------------------------------------------- autograd


def both(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    return [function, graphc.compile(function)]


def test_backward_of_a_non_scalar() -> None:
    weight = floats(3).requires_grad_()

    def step(x: graphc.Tensor) -> graphc.Tensor:
        (weight * x).backward()  # non-scalar
        return x

    for function in both(step):
        with pytest.raises(RuntimeError) as caught:
            function(floats(3))
        for part in ("grad can be implicitly created only for scalar", "float32[3]", place("non-scalar")):
            assert part in str(caught.value)
        assert weight.grad is None


def test_backward_twice() -> None:
    weight = floats(3).requires_grad_()

    def step(x: graphc.Tensor) -> graphc.Tensor:
        loss = (weight * x).sum()
        loss.backward()
        loss.backward()  # again
        return loss

    for function, grad in zip(both(step), (floats(3).numpy(), None), strict=True):
        weight.grad = None
        with pytest.raises(RuntimeError) as caught:
            function(floats(3))
        for part in ("backward through the graph a second time", "retain_graph=True", place("again")):
            assert part in str(caught.value)
        if grad is None:
            assert weight.grad is None  # a failed trace leaves nothing
        else:
            np.testing.assert_array_equal(weight.grad.numpy(), grad)


def test_in_place_change_of_a_leaf() -> None:
    weight = floats(3).requires_grad_()
    before = weight.detach().numpy().copy()

    def change(x: graphc.Tensor) -> graphc.Tensor:
        weight.mul_(x)  # in place
        return x

    for function in both(change):
        with pytest.raises(RuntimeError) as caught:
            function(floats(3))
        for part in ("a leaf Variable that requires grad", "in-place", "float32[3]", place("in place")):
            assert part in str(caught.value)
    with pytest.raises(RuntimeError, match="a view of a leaf Variable"):
        weight[0] = 1.0
    np.testing.assert_array_equal(weight.detach().numpy(), before)


def test_unknown_backend() -> None:
    with pytest.raises(ValueError) as caught:
        graphc.compile(multiply, backend="cuda")  # backend
    for part in ("unknown backend 'cuda'", "llvm, reference", place("backend")):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match=r"unknown backend 'tpu' \(known backends: .*llvm"):
        graphc.set_backend("tpu")
    assert (floats(3) + 1).numpy().shape == (3,)


# ------------------------------------------------------------------ cache folder

SCRIPT = """
import graphc, numpy as np
x = graphc.from_numpy(np.linspace(0, 0.1, 6, dtype=np.float32).reshape(2, 3))
print(graphc.compile(lambda x: (x @ x.t()).exp().sum(0))(x).tolist())
"""


def run_script(folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "GRAPHC_CACHE": str(folder)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_unusable_cache_folders(tmp_path: Path) -> None:
    """A whole program in a process of its own: a warning that names the folder, and the right numbers."""
    good = run_script(tmp_path / "good")
    assert good.stderr == ""
    file = tmp_path / "file"
    file.write_text("hello")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    cases = {
        file: "is not a folder",
        file / "below": "cannot use the folder",
        Path("/proc/graphc-cache"): "cannot use the folder",
        shared: "can be written by others",
    }
    for folder, reason in cases.items():
        done = run_script(folder)
        assert done.stdout == good.stdout
        assert "CacheWarning" in done.stderr, folder
        assert str(folder) in done.stderr
        assert reason in done.stderr
    assert file.read_text() == "hello"
    assert list(shared.iterdir()) == []


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], np.ndarray]]:
    """Compiles and runs a program with nothing in memory and a cache folder of this test's own."""
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    x = np.linspace(0, 1, 12, dtype=np.float32)

    def run() -> np.ndarray:
        program_cache.clear()
        cache._store_at.cache_clear()
        given = graphc.from_numpy(x.copy())
        return graphc.compile(lambda t: (t * 3).sin().cumsum(0))(given).numpy()

    yield run
    program_cache.clear()
    cache._store_at.cache_clear()


def entries(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_corrupted_cache(program: Callable[[], np.ndarray], tmp_path: Path) -> None:
    """Every file damaged: a warning, the same bits, and a healed folder."""
    expected = program()
    written = entries(tmp_path / "cache")
    assert written
    for damage in (lambda b: b[:-7], lambda b: b[:-3] + bytes([b[-3] ^ 16]) + b[-2:], lambda b: b""):
        for name, data in written.items():
            (tmp_path / "cache" / name).write_bytes(damage(data))
        with pytest.warns(CacheWarning, match="is damaged; it is discarded"):
            again = program()
        assert again.tobytes() == expected.tobytes()
        assert entries(tmp_path / "cache").keys() == written.keys()
    assert program().tobytes() == expected.tobytes()


def test_foreign_cache(
    program: Callable[[], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of another user is neither read nor written."""
    expected = program()
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(b"what somebody else wrote")
    before = entries(tmp_path / "cache")
    owner = (tmp_path / "cache").stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.warns(CacheWarning, match=rf"belongs to user {owner}, not to you"):
        again = program()
    assert again.tobytes() == expected.tobytes()
    assert entries(tmp_path / "cache") == before


def test_full_disk(
    program: Callable[[], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(CacheWarning, match="No space left on device; going on without"):
        assert program().shape == (12,)
    assert entries(tmp_path / "cache") == {}


def test_well_formed_nonsense_in_the_cache(program: Callable[[], np.ndarray], tmp_path: Path) -> None:
    """Entries with a right checksum that no backend wrote: as good as absent."""
    expected = program()
    store = Store(tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        store.put(path.suffix[1:], path.stem, b"no program")
    assert program().tobytes() == expected.tobytes()


# ------------------------------------------------------------------- checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, bytes]:
    training = Training(compiled=False)
    path = tmp_path / "best.safetensors"
    graphc.save({"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict()}, path)
    return path, path.read_bytes()


def test_damaged_checkpoint(checkpoint: tuple[Path, bytes]) -> None:
    """Cut anywhere, or any bit flipped: refused by name, and the file stays as it is."""
    path, data = checkpoint
    rng = np.random.default_rng(0)
    damaged = [data[:cut] for cut in (0, 5, 8, 60, len(data) // 2, len(data) - 1)]
    for at in [*range(0, 64, 3), *rng.integers(0, len(data), 150).tolist()]:
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(0, 8))
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"graphc\.load: .*best\.safetensors"):
            graphc.load(path)
        assert path.read_bytes() == content
    path.write_bytes(data)
    assert set(graphc.load(path)) == {"model", "optimizer"}


def test_failed_save_keeps_the_checkpoint(checkpoint: tuple[Path, bytes]) -> None:
    path, data = checkpoint
    with pytest.raises(TypeError, match=r"cannot save Net at model\. "):
        graphc.save({"model": Net()}, path)
    assert path.read_bytes() == data
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def drop(state: dict[str, Any]) -> None:
    del state["conv.bias"]


def add(state: dict[str, Any]) -> None:
    state["conv.extra"] = floats(3)


def reshape(state: dict[str, Any]) -> None:
    state["head.1.weight"] = floats(3, 3)


def all_of_them(state: dict[str, Any]) -> None:
    for change in (drop, add, reshape):
        change(state)


MISSING = 'Missing key(s) in state_dict: "conv.bias"'
EXTRA = 'Unexpected key(s) in state_dict: "conv.extra"'
SHAPES = ["size mismatch for head.1.weight", "[3, 3]", "[10, 64]"]


@pytest.mark.parametrize(
    "change, parts",
    [(drop, [MISSING]), (add, [EXTRA]), (reshape, SHAPES), (all_of_them, [MISSING, EXTRA, *SHAPES])],
)
def test_state_dict_that_does_not_fit(
    training: Training, change: Callable[[dict[str, Any]], None], parts: list[str]
) -> None:
    state = {k: floats(*v.shape, seed=7).to(v.dtype) for k, v in training.model.state_dict().items()}
    change(state)
    before = training.state()
    with pytest.raises(RuntimeError) as caught:
        training.model.load_state_dict(state)  # load
    for part in ["Error(s) in loading state_dict for Net", *parts, place("load")]:
        assert part in str(caught.value)
    assert_unchanged(before, training.state())


def test_optimizer_state_that_does_not_fit(training: Training) -> None:
    before = training.state()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        training.optimizer.load_state_dict({"state": {}, "param_groups": []})
    assert_unchanged(before, training.state())


# ---------------------------------------------------------------------- programs


def test_failed_check_leaves_the_cache_usable() -> None:
    """A program that failed is still good for better input, without another compilation."""
    table = graphc.zeros(5)

    def count(index: graphc.Tensor) -> graphc.Tensor:
        table.index_add_(0, index, graphc.ones(2))
        return table.sum()

    compiled = graphc.compile(count)
    assert compiled(labels(0, 1)).item() == 2
    with pytest.raises(IndexError, match=r"got 5 at \[1\]"):
        compiled(labels(0, 5))
    assert table.tolist() == [1, 1, 0, 0, 0]
    assert compiled(labels(4, 4)).item() == 4
    assert table.tolist() == [1, 1, 0, 0, 2]
    assert compiled.compilations == 1


def test_refused_arrays_reach_no_code() -> None:
    """The lowest door, for those who compile graphs themselves."""
    graph = graphc.trace(lambda x: x.exp(), graphc.TensorSpec((4, 6), graphc.float32))
    program = pipeline.compile(graph)
    wrong = [np.zeros((6, 4), np.float32), np.zeros((4, 6)), np.zeros((6, 4), np.float32).T, [[0.0] * 6] * 4]
    for array in wrong:
        with pytest.raises((TypeError, ValueError), match="input 0: "):
            program([array])
