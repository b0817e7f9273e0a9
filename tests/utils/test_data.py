"""Datasets, samplers, collation and loaders; against PyTorch where results are determined."""

from __future__ import annotations

import collections
import inspect
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402
from graphc.utils import data  # noqa: E402


class Squares(data.Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"x": np.float32(i), "square": i * i, "name": str(i)}


class Stream(data.IterableDataset):
    """Yields start..end; workers share the range between them."""

    def __init__(self, start, end):
        self.start, self.end = start, end

    def __iter__(self):
        info = data.get_worker_info()
        step, first = (1, 0) if info is None else (info.num_workers, info.id)
        return iter(range(self.start + first, self.end, step))


def tensors(n=10):
    return graphc.arange(n).float(), graphc.arange(2 * n).reshape(n, 2)


def test_tensor_dataset_and_friends():
    x, y = tensors()
    whole = data.TensorDataset(x, y)
    assert len(whole) == 10
    assert whole[3][1].tolist() == [6, 7]
    both = whole + whole
    assert isinstance(both, data.ConcatDataset)
    assert len(both) == 20
    assert both[13][0].item() == 3
    assert both[-1][0].item() == 9
    part = data.Subset(whole, [4, 2])
    assert part[1][0].item() == 2
    assert [r[0].item() for r in part.__getitems__([0, 1])] == [4, 2]
    with pytest.raises(AssertionError, match="Size mismatch"):
        data.TensorDataset(x, y[:3])
    chain = data.ChainDataset([Stream(0, 2), Stream(5, 7)])
    assert list(chain) == [0, 1, 5, 6]
    stacked = data.StackDataset(image=whole, n=Squares(10))
    assert stacked[2]["n"]["square"] == 4


def test_random_split():
    graphc.manual_seed(0)
    a, b = data.random_split(Squares(10), [7, 3])
    assert sorted([*a.indices, *b.indices]) == list(range(10))
    assert [len(s) for s in data.random_split(Squares(10), [0.5, 0.3, 0.2])] == [5, 3, 2]
    assert [len(s) for s in data.random_split(Squares(11), [0.5, 0.5])] == [6, 5]
    first = data.random_split(Squares(50), [25, 25], generator=graphc.Generator().manual_seed(4))
    again = data.random_split(Squares(50), [25, 25], generator=graphc.Generator().manual_seed(4))
    assert first[0].indices == again[0].indices
    with pytest.raises(ValueError, match="Sum of input lengths"):
        data.random_split(Squares(10), [7, 4])


def test_samplers():
    graphc.manual_seed(0)
    assert list(data.SequentialSampler(range(4))) == [0, 1, 2, 3]
    one, two = list(data.RandomSampler(range(50))), list(data.RandomSampler(range(50)))
    assert sorted(one) == sorted(two) == list(range(50))
    assert one != two
    assert len(list(data.RandomSampler(range(5), num_samples=12))) == 12
    drawn = list(data.RandomSampler(range(5), replacement=True, num_samples=1000))
    assert min(collections.Counter(drawn).values()) > 120
    assert sorted(data.SubsetRandomSampler([5, 3, 9])) == [3, 5, 9]
    weighted = collections.Counter(data.WeightedRandomSampler([1, 0, 3], 4000))
    assert weighted[1] == 0
    assert abs(weighted[2] - 3000) < 150
    assert sorted(data.WeightedRandomSampler([1, 2, 3], 3, replacement=False)) == [0, 1, 2]
    assert list(data.BatchSampler(range(5), 2, False)) == [[0, 1], [2, 3], [4]]
    assert len(data.BatchSampler(range(5), 2, True)) == len(list(data.BatchSampler(range(5), 2, True))) == 2
    shares = [list(data.DistributedSampler(range(10), 3, rank, seed=1)) for rank in range(3)]
    assert {len(s) for s in shares} == {4}
    assert set().union(*shares) == set(range(10))
    sampler = data.DistributedSampler(range(10), 2, 0)
    before = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != before
    with pytest.raises(ValueError, match="positive integer"):
        data.BatchSampler(range(5), 0, False)


Point = collections.namedtuple("Point", "x y")
SAMPLES = [
    [1, 2, 3],
    [1.5, 2.5],
    [True, False],
    [np.float32(1), np.float32(2)],
    [np.arange(3), np.arange(3) + 1],
    [(1, 2.0), (3, 4.0)],
    [[1, 2], [3, 4]],
    [{"a": 1, "b": [1.0]}, {"a": 2, "b": [2.0]}],
    [Point(1, 2.0), Point(3, 4.0)],
    ["a", "b"],
]


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return (type(value).__name__, [plain(v) for v in value])
    if hasattr(value, "numpy"):
        return (str(value.dtype).split(".")[1], value.tolist())
    return value


@pytest.mark.parametrize("batch", SAMPLES, ids=str)
def test_collate(batch):
    assert plain(data.default_collate(batch)) == plain(torch.utils.data.default_collate(batch))


def test_collate_tensors_and_errors():
    out = data.default_collate([graphc.ones(2), graphc.zeros(2)])
    assert out.tolist() == [[1, 1], [0, 0]]
    with pytest.raises(RuntimeError, match="equal size"):
        data.default_collate([[1], [1, 2]])
    with pytest.raises(RuntimeError, match="stack expects each tensor"):
        data.default_collate([graphc.ones(2), graphc.zeros(3)])
    with pytest.raises(TypeError, match="batch must contain tensors"):
        data.default_collate([object()])
    with pytest.raises(RuntimeError, match=r"got \[2\] at entry 0 and \[3\] at entry 1"):
        data.default_collate([np.zeros(2), np.zeros(3)])


def test_errors_name_the_place_and_the_index():
    with pytest.raises(TypeError, match="found <class 'NoneType'>") as caught:
        data.default_collate([{"x": 1, "y": (2, None)}] * 2)
    assert caught.value.__notes__ == ["at [1] of the samples", "at ['y'] of the samples"]

    class Broken(data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {0: "a", 1: "b", 2: "c"}[index]

    for workers in (0, 2):
        with pytest.raises(KeyError) as caught:
            list(data.DataLoader(Broken(), batch_size=2, num_workers=workers))
        assert caught.value.__notes__ == ["raised by dataset[3] of Broken"]


@pytest.mark.parametrize("workers", [0, 3])
def test_loader(workers):
    x, y = tensors()
    loader = data.DataLoader(data.TensorDataset(x, y), batch_size=4, num_workers=workers)
    batches = list(loader)
    assert [b[0].tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[0][1].dtype is graphc.int64
    assert len(loader) == 3
    assert len(list(data.DataLoader(Squares(10), 4, drop_last=True, num_workers=workers))) == 2
    batch = next(iter(data.DataLoader(Squares(10), 2, num_workers=workers)))
    assert (batch["x"].tolist(), batch["square"].tolist(), batch["name"]) == ([0, 1], [0, 1], ["0", "1"])
    single = list(data.DataLoader(Squares(3), batch_size=None, num_workers=workers))
    assert [s["square"] for s in single] == [0, 1, 4]
    part = data.Subset(data.TensorDataset(x, y), [9, 8, 7])
    assert [b[0].tolist() for b in data.DataLoader(part, 2, num_workers=workers)] == [[9, 8], [7]]


def test_order_does_not_depend_on_workers():
    def order(workers, seed):
        generator = graphc.Generator().manual_seed(seed)
        loader = data.DataLoader(Squares(30), 4, shuffle=True, num_workers=workers, generator=generator)
        return [b["square"].tolist() for _ in range(2) for b in loader]

    assert order(0, 1) == order(1, 1) == order(4, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1)[:8] != order(0, 1)[8:]


@pytest.mark.parametrize("workers", [0, 2])
def test_streams(workers):
    loader = data.DataLoader(Stream(0, 11), batch_size=3, num_workers=workers)
    batches = [b.tolist() for b in loader]
    assert sorted(v for b in batches for v in b) == list(range(11))
    if workers == 0:
        assert batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10]]
    assert len(list(data.DataLoader(Stream(0, 11), batch_size=3, drop_last=True))) == 3


def test_worker_info_init_and_results_in_any_order():
    seen = []

    def start(number):
        info = data.get_worker_info()
        assert isinstance(info, data.WorkerInfo)
        seen.append((number, info.id, info.num_workers, info.seed))
        info.dataset.n = 100 + number  # this worker's copy only

    dataset = Squares(8)
    list(data.DataLoader(dataset, 2, num_workers=2, worker_init_fn=start))
    assert sorted(s[:3] for s in seen) == [(0, 0, 2), (1, 1, 2)]
    assert len({s[3] for s in seen}) == 2
    assert dataset.n == 8
    assert data.get_worker_info() is None
    loader = data.DataLoader(dataset, 1, num_workers=2, in_order=False)
    assert sorted(b["square"].item() for b in loader) == [i * i for i in range(8)]


class Broken(Squares):
    def __getitem__(self, i):
        if i == 5:
            raise KeyError("sample five")
        return i


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_reach_the_loop(workers):
    batches = iter(data.DataLoader(Broken(8), 2, num_workers=workers))
    assert [next(batches).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(KeyError, match="sample five"):
        next(batches)


class Slow(Squares):
    def __getitem__(self, i):
        time.sleep(0.5)
        return i


def test_timeout():
    loader = data.DataLoader(Slow(2), 1, num_workers=1, timeout=0.05)
    with pytest.raises(RuntimeError, match=r"timed out after 0.05 seconds"):
        next(iter(loader))


def test_wrong_arguments_have_torchs_texts():
    cases = [
        {"num_workers": -1},
        {"timeout": -1},
        {"prefetch_factor": 2},
        {"persistent_workers": True},
        {"shuffle": True, "sampler": [1]},
        {"batch_sampler": [[1]], "batch_size": 3},
        {"batch_size": None, "drop_last": True},
        {"batch_size": 0},
    ]
    for options in cases:
        texts = []
        for T, dataset in ((graphc, Squares(3)), (torch, torch.utils.data.TensorDataset(torch.zeros(3)))):
            with pytest.raises(ValueError) as caught:
                T.utils.data.DataLoader(dataset, **options)
            texts.append(str(caught.value).replace(". let", ".let"))
        assert texts[0] == texts[1]
    loader = data.DataLoader(Squares(3))
    with pytest.raises(ValueError, match="should not be set"):
        loader.batch_size = 2


@pytest.mark.parametrize(
    "name", [n for n in data.__all__ if inspect.isclass(getattr(torch.utils.data, n, None))]
)
def test_signature(name):
    try:
        ours, theirs = (inspect.signature(getattr(T.utils.data, name).__init__) for T in (graphc, torch))
    except ValueError:
        pytest.skip("no signature")
    mine, wanted = list(ours.parameters), list(theirs.parameters)
    assert mine == wanted or {"args", "kwargs"} & set(wanted)


def test_default_convert_makes_tensors_of_arrays_wherever_they_are():
    given = {"a": np.ones(2, np.float32), "b": [np.int64(3), "text"], "c": (np.zeros(1), None)}
    found = data.default_convert(given)
    assert found["a"].tolist() == [1, 1]
    assert found["b"][0].item() == 3
    assert found["b"][1] == "text"
    assert found["c"][0].dtype is graphc.float64
    assert found["c"][1] is None
    assert data.default_convert(found["a"]) is found["a"]


def test_threads_may_read_a_tensor_that_is_not_computed_yet():
    for _ in range(20):
        x = graphc.arange(400.0).reshape(100, 4) * 2
        loader = data.DataLoader(data.TensorDataset(x), batch_size=2, num_workers=4)
        found = np.concatenate([b[0].numpy() for b in loader])
        np.testing.assert_array_equal(found, np.arange(400.0).reshape(100, 4) * 2)
