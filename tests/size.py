"""Print the size of the project: `python tests/size.py`."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
GROUPS = {
    "IR and ops": ("graphc/ir", "graphc/ops", "graphc/autodiff"),
    "passes, plan, pipeline": ("graphc/passes", "graphc/analysis", "graphc/*.py"),
    "loop IR and lowering": ("graphc/loop",),
    "backends": ("backends",),
    "front end": ("graphc/frontend",),
    "nn, optim, utils": ("graphc/nn", "graphc/optim", "graphc/utils", "graphc/vision", "graphc/train"),
    "examples": ("examples",),
    "tests": ("tests",),
}


def files(pattern: str) -> list[Path]:
    path = ROOT / pattern
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    return sorted(ROOT.glob(pattern))


def main() -> None:
    seen: set[Path] = set()
    total = 0
    for title, patterns in GROUPS.items():
        members = [f for p in patterns for f in files(p) if f not in seen]
        seen.update(members)
        lines = [f.read_text().count("\n") for f in members]
        total += sum(lines)
        print(f"{title:25} {len(members):4} files {sum(lines):7} lines, longest {max(lines, default=0)}")
    print(f"{'total':25} {len(seen):4} files {total:7} lines")


if __name__ == "__main__":
    main()
