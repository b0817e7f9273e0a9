"""The on-disk store of compiled things: private, verified, atomic; any damage is a miss.

Whoever can write here can run code in the user's processes, so the folder must belong to the user and be
writable by nobody else. Entries are found by a SHA-256 key of everything that decides their content, and
carry the hash of their payload. Nothing that goes wrong here fails a compilation: it warns once, and
compiles uncached.

``GRAPHC_CACHE`` is ``off`` or a folder; by default the user's cache folder (``XDG_CACHE_HOME`` is
honoured).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_MAGIC = b"graphc-cache-1\n"
_HASH_BYTES = 32
_HEADER_BYTES = len(_MAGIC) + 8 + _HASH_BYTES
DEFAULT_CAP = 512 << 20
_PRUNE_TO = 0.75
_TEMPORARY = ".tmp-"
_STALE_SECONDS = 3600.0


class CacheWarning(UserWarning):
    """Something is wrong with the cache folder; the program goes on without it."""


@dataclass(frozen=True)
class CacheInfo:
    """What a store holds: number of entries, their total size in bytes, and the folder (None if off)."""

    folder: Path | None
    entries: int
    bytes: int


def digest(*parts: str | bytes) -> str:
    """A key: the SHA-256, in hex, of the parts and their boundaries."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


class Store:
    """Payloads by (kind, key) in one folder. Safe for threads and for several processes at once."""

    def __init__(self, folder: Path | None, cap: int = DEFAULT_CAP) -> None:
        """`folder` None is a store that keeps nothing. `cap` bounds the folder's size in bytes."""
        self._folder = folder
        self._cap = cap
        self._checked = False
        self._written = 0
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path | None:
        """The folder, or None if the store is off (also after a problem switched it off)."""
        return self._folder

    def get(self, kind: str, key: str) -> bytes | None:
        """The payload, or None. A damaged entry is removed with a warning."""
        if not self._usable(create=False):
            return None
        path = self._path(kind, key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"cannot read {path}: {error.strerror}")
            return None
        payload = _unwrap(data)
        if payload is None:
            self._warn(f"{path} is damaged; it is discarded and compiled again")
            with contextlib.suppress(OSError):
                path.unlink()
        return payload

    def put(self, kind: str, key: str, payload: bytes) -> None:
        """Keep a payload. A full disk or a folder that cannot be written is a warning."""
        if not self._usable(create=True):
            return
        path = self._path(kind, key)
        try:
            _write_atomically(path, _wrap(payload))
        except OSError as error:
            self._switch_off(f"cannot write {path}: {error.strerror}")
            return
        self._written += len(payload)
        if self._written > self._cap // 16:
            self._written = 0
            self.prune()

    def info(self) -> CacheInfo:
        """Count the entries."""
        sizes = [size for _, size, _ in self._entries()]
        return CacheInfo(self._folder, len(sizes), sum(sizes))

    def clear(self) -> int:
        """Remove every entry; how many there were."""
        removed = 0
        for path, _, _ in self._entries():
            with contextlib.suppress(OSError):
                path.unlink()
                removed += 1
        return removed

    def prune(self) -> None:
        """If the folder is over its cap, remove the entries unused for longest until it is well below."""
        entries = self._entries()
        total = sum(size for _, size, _ in entries)
        if total <= self._cap:
            return
        for path, size, _ in sorted(entries, key=lambda entry: entry[2]):
            if total <= self._cap * _PRUNE_TO:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size

    def _path(self, kind: str, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.{kind}"

    def _entries(self) -> list[tuple[Path, int, float]]:
        """(path, size, time of last use) of all files that look like entries of this store."""
        if self._folder is None or not self._usable(create=False):
            return []
        found = []
        with contextlib.suppress(OSError), os.scandir(self._folder) as files:
            for file in files:
                status = file.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and not file.name.startswith(_TEMPORARY):
                    found.append((Path(file.path), status.st_size, max(status.st_atime, status.st_mtime)))
        return found

    def _usable(self, create: bool) -> bool:
        """Whether the folder exists and is private; made if `create`."""
        if self._folder is None:
            return False
        if self._checked:
            return True
        with self._lock:
            try:
                if create:
                    self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                status = self._folder.stat()
            except OSError as error:
                if isinstance(error, FileNotFoundError) and not create:
                    return False
                self._switch_off(f"cannot use the folder {self._folder}: {error.strerror}")
                return False
            problem = _why_unsafe(status)
            if problem:
                self._switch_off(f"the folder {self._folder} {problem}")
                return False
            self._checked = True
            _remove_stale_temporaries(self._folder)
        return True

    def _switch_off(self, reason: str) -> None:
        self._warn(reason + "; going on without the cache")
        self._folder = None

    def _warn(self, text: str) -> None:
        warnings.warn(f"graphc cache: {text}", CacheWarning, stacklevel=3)


def _why_unsafe(status: os.stat_result) -> str | None:
    """Why code must not be loaded from a folder with this status; None if it may."""
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if not hasattr(os, "getuid"):
        return None  # Windows: the user's profile folder is private by its access list
    if status.st_uid != os.getuid():
        return f"belongs to user {status.st_uid}, not to you ({os.getuid()})"
    if status.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o}; want 700)"
    return None


def _wrap(payload: bytes) -> bytes:
    return b"".join((_MAGIC, len(payload).to_bytes(8, "little"), hashlib.sha256(payload).digest(), payload))


def _unwrap(data: bytes) -> bytes | None:
    """The payload of a well-formed file, else None."""
    if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
        return None
    at = len(_MAGIC)
    length = int.from_bytes(data[at : at + 8], "little")
    expected = data[at + 8 : _HEADER_BYTES]
    payload = data[_HEADER_BYTES:]
    if len(payload) != length or hashlib.sha256(payload).digest() != expected:
        return None
    return payload


def _write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that a reader never sees half a file."""
    descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _remove_stale_temporaries(folder: Path) -> None:
    """Files a killed process left half written."""
    with contextlib.suppress(OSError):
        newest = folder.stat().st_mtime
        for path in folder.glob(f"{_TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if newest - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def default_folder() -> Path | None:
    """The folder that ``GRAPHC_CACHE`` and the system's conventions name; None if the cache is off."""
    chosen = os.environ.get("GRAPHC_CACHE", "").strip()
    if chosen.lower() in ("off", "0", "none"):
        return None
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path  # not needed, and not loaded, when the folder is given

    return user_cache_path("graphc", appauthor=False)


@cache
def _store_at(folder: Path | None) -> Store:
    return Store(folder)


def get_store() -> Store:
    """The store of this process, as ``GRAPHC_CACHE`` says now."""
    return _store_at(default_folder())
