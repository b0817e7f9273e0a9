"""The on-disk store: private, verified, atomic; whatever is wrong with it is a warning and a miss."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from graphc import cache
from graphc.cache import CacheWarning, Store, default_folder, digest

KEY = digest("some kernel", b"some target")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def store(folder):
    return Store(folder)


@pytest.fixture(autouse=True)
def _no_unexpected_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheWarning)
        yield


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_round_trip(store, folder):
    assert store.get("object", KEY) is None
    store.put("object", KEY, b"machine code")
    assert store.get("object", KEY) == b"machine code"
    assert store.get("program", KEY) is None
    assert Store(folder).get("object", KEY) == b"machine code"
    assert store.info().entries == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    assert only_file(folder).stat().st_mode & 0o077 == 0


def test_empty_payload(store):
    store.put("object", KEY, b"")
    assert store.get("object", KEY) == b""


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"X" + data[1:],
        lambda data: data.replace(b"cache-1", b"cache-9"),
    ],
    ids=["empty", "header cut", "end cut", "longer", "bit", "magic", "version"],
)
def test_damage_is_a_miss_and_heals(store, folder, damage):
    store.put("object", KEY, b"machine code")
    path = only_file(folder)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(CacheWarning, match="damaged"):
        assert store.get("object", KEY) is None
    assert not path.exists()
    store.put("object", KEY, b"machine code")
    assert store.get("object", KEY) == b"machine code"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_folder_others_can_write_is_refused(folder, mode):
    folder.mkdir()
    (folder / f"{KEY}.object").write_bytes(cache._wrap(b"evil"))
    folder.chmod(mode)
    store = Store(folder)
    with pytest.warns(CacheWarning, match="can be written by others"):
        assert store.get("object", KEY) is None
    store.put("object", KEY, b"mine")  # off: nothing is written, and no second warning
    assert (folder / f"{KEY}.object").read_bytes() == cache._wrap(b"evil")


def test_folder_of_another_user_is_refused(folder, monkeypatch):
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    store = Store(folder)
    with pytest.warns(CacheWarning, match="belongs to user"):
        store.put("object", KEY, b"machine code")
    assert list(folder.iterdir()) == []


def test_folder_that_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("hello")
    with pytest.warns(CacheWarning):
        Store(path).put("object", KEY, b"machine code")
    assert path.read_text() == "hello"


def test_unwritable_place_is_a_warning(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    store = Store(tmp_path / "deep" / "cache")
    with pytest.warns(CacheWarning, match="Permission denied; going on without"):
        store.put("object", KEY, b"machine code")
    store.put("object", KEY, b"machine code")
    assert store.folder is None
    assert store.get("object", KEY) is None


def test_full_disk_is_a_warning_and_leaves_nothing(store, folder, monkeypatch):
    store.put("object", KEY, b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(CacheWarning, match="No space left"):
        store.put("object", digest("other"), b"new")
    assert [p.name for p in folder.iterdir()] == [f"{KEY}.object"]


def test_pruning_removes_the_least_used(folder):
    store = Store(folder, cap=10_000)
    keys = [digest(str(n)) for n in range(20)]
    for age, key in enumerate(keys):
        store.put("object", key, bytes(900))
        when = 1_000_000_000 + age * 1000
        os.utime(folder / f"{key}.object", (when, when))
    store.prune()
    assert store.info().bytes <= 10_000
    assert store.get("object", keys[-1]) is not None
    assert store.get("object", keys[0]) is None


def test_writing_much_prunes_by_itself(folder):
    store = Store(folder, cap=20_000)
    for n in range(60):
        store.put("object", digest(str(n)), bytes(1000))
    assert store.info().bytes <= 22_000


def test_clear(store):
    for n in range(3):
        store.put("object", digest(str(n)), b"x")
    assert store.clear() == 3
    assert store.info().entries == 0


def test_off(monkeypatch):
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert default_folder() is None
    store = cache.get_store()
    store.put("object", KEY, b"x")
    assert store.get("object", KEY) is None
    assert store.info().entries == store.clear() == 0


def test_places(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"
    assert cache.get_store() is cache.get_store()
    monkeypatch.delenv("GRAPHC_CACHE")
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert default_folder() == tmp_path / "xdg" / "graphc"


def test_digest_separates_its_parts():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", b"b") == digest(b"a", "b")


def test_many_writers_and_readers(folder):
    """Threads and a second process write the same entries; a reader sees whole payloads only."""
    payloads = {digest(str(n)): bytes([n]) * 50_000 for n in range(4)}
    script = (
        "import sys; from pathlib import Path; from graphc.cache import Store, digest\n"
        "s = Store(Path(sys.argv[1]))\n"
        "for _ in range(30):\n"
        "    for n in range(4): s.put('object', digest(str(n)), bytes([n]) * 50_000)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(folder)])
    wrong = []

    def work():
        store = Store(folder)
        for _ in range(30):
            for key, payload in payloads.items():
                store.put("object", key, payload)
                if store.get("object", key) != payload:
                    wrong.append(key)

    crew = [threading.Thread(target=work) for _ in range(3)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert other.wait(timeout=60) == 0
    assert not wrong
    assert not [p for p in folder.iterdir() if p.name.startswith(".tmp")]
