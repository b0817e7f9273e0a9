"""`graphc cache info|clear`: the folder of compiled code."""

from __future__ import annotations

import argparse
from typing import Any

from graphc import cache


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("cache", help="show or empty the folder of compiled code")
    parser.add_argument("action", choices=("info", "clear"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    store = cache.get_store()
    if store.folder is None:
        print("the cache is off (GRAPHC_CACHE=off)")
    elif args.action == "clear":
        print(f"{store.clear()} files removed from {store.folder}")
    else:
        info = store.info()
        print(f"{info.folder}: {info.entries} files, {info.bytes / 1e6:.1f} MB")
    return 0
