"""The command: `graphc dump`, `graphc cache`."""

from __future__ import annotations

import argparse
import sys

import graphc
from graphc.command import cache, dump
from graphc.command.target import UsageError


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="graphc", description="A symbolic graph compiler for neural networks."
    )
    parser.add_argument("--version", action="version", version=f"graphc {graphc.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dump.add_parser(commands)
    cache.add_parser(commands)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except (UsageError, RuntimeError, ValueError, TypeError, IndexError) as error:
        print(f"graphc: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
