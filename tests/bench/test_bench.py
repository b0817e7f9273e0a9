"""The benchmark: its command on a small workload, its tables on made-up records, its workloads."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench import __main__ as command
from tests.bench import plot
from tests.bench.engines import ENGINES, tensors
from tests.bench.suites import SUITES, WORKLOADS
from tests.bench.tables import Results, markdown
from tests.bench.workload import Inference, Operator, Training

ROOT = Path(__file__).parents[2]


def record(workload: str, engine: str, ms: float, number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "workload": workload,
        "engine": engine,
        "version": "1",
        "round": number,
        "ms": ms,
        "first_s": 10 * ms,
        "memory_mb": 100 * ms,
        "output": [1.0],
        **more,
    }


def rows(text: str, title: str) -> dict[str, list[str]]:
    """The cells of a table, by workload."""
    part = text.split(f"### {title}")[1].split("###")[0]
    lines = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [c.strip() for c in cells[1:]] for cells in lines[2:]}


# ----------------------------------------------------------------------------- command


def test_command_measures_and_leaves_out_what_is_not_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench", "--workloads", "circles", "--engines", "graphc,jax"),
            *("--python", "jax=/nonexistent/python", "--rounds", "2", "--seconds", "0.01", "--threads", "1"),
            *("--markdown", str(tmp_path / "t.md"), "--json", str(tmp_path / "r.jsonl")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    text = (tmp_path / "t.md").read_text()
    assert text.strip() == done.stdout.strip()
    assert "jax left out: not installed for /nonexistent/python" in text
    steps = rows(text, "Milliseconds a step")
    assert list(steps) == ["circles"]
    assert 0 < float(steps["circles"][0]) < 1000
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [r["round"] for r in records] == [0, 1]
    first, later = (r["output"] for r in records)
    assert first == later  # the same losses in another process
    assert first[0] > first[-1] > 0  # and they fall
    assert records[1]["first_s"] < records[0]["first_s"]  # caches are warm
    assert 0 < records[0]["memory_mb"] < 2000
    assert "[2/2] round 2: circles on graphc" in done.stderr
    assert "measured in the same run" in text


def test_what_fails_is_said_and_not_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A peer that is there but broken: a stand-in for its interpreter."""
    calls = tmp_path / "calls"
    peer = tmp_path / "python"
    peer.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then exit 0; fi\necho x >> {calls}\n'
        "echo 'Traceback (most recent call last):' >&2\necho 'ValueError: broken' >&2\n"
        "echo '  ^' >&2\nexit 1\n"
    )
    peer.chmod(0o755)
    command.main(
        ["--workloads", "circles", "--engines", "torch", "--python", f"torch={peer}", "--rounds", "3"]
    )
    assert "torch does not run circles: ValueError: broken" in capsys.readouterr().out
    assert calls.read_text() == "x\n"


@pytest.mark.parametrize("arguments", [["--workloads", "nonsense"], ["--engines", "graphc,abacus"]])
def test_unknown_names_are_refused(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert arguments[1].split(",")[-1] in capsys.readouterr().err or arguments[0] == "--workloads"


def test_selection() -> None:
    assert command.select("matmuls") == list(SUITES["matmuls"])
    assert command.select("lenet,mlp*") == ["lenet", "mlp", "mlp_adam", "mlp_infer"]
    with pytest.raises(ValueError, match="nonsense"):
        command.select("lenet,nonsense")


# ------------------------------------------------------------------------------ tables


def made_up() -> Results:
    records = [record("a", "graphc", ms, n, flops=3e9) for n, ms in enumerate((30.0, 10.0, 20.0))]
    records += [record("a", "torch", 50.0), record("a", "jax", 30.0, output=[2.0])]
    records += [record("b", "graphc", 4.0, flops=1e3, bytes=40e6), record("b", "torch", 2.0)]
    return Results(2, ["graphc", "torch", "jax"], records, [{"gflops": 100.0, "gbytes": 20.0}], ["a note"])


def test_tables_have_medians_ratios_and_limits() -> None:
    text = markdown(made_up())
    steps = rows(text, "Milliseconds a step")
    assert steps["a"] == ["20", "50", "30 ≠", "1.50", "75% of FMA peak"]
    assert steps["b"] == ["4", "2", "-", "0.50", "50% of bandwidth"]
    assert rows(text, "First call")["a"] == ["300 / 150", "500 / -", "300 / -"]
    assert rows(text, "Peak memory")["a"] == ["2e+03", "5e+03", "3e+03", "0.40"]
    assert "- a note" in text
    assert "≠: other numbers" in text


def test_records_can_be_rendered_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    lines = [json.dumps({**r, "threads": 2}) for r in made_up().records]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    command.main(["--render", str(tmp_path / "r.jsonl")])
    steps = rows(capsys.readouterr().out, "Milliseconds a step")
    assert steps["a"] == ["20", "50", "30 ≠", "1.50", "-"]  # the machine's figures are not in the file


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(made_up(), tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


# --------------------------------------------------------------------------- workloads


def test_names_are_unique() -> None:
    assert len(WORKLOADS) == sum(map(len, SUITES.values()))


def test_kinds_of_workloads() -> None:
    kinds = {type(work) for work in WORKLOADS.values()}
    assert kinds == {Training, Inference, Operator}
    assert all(isinstance(w, Operator) for s in ("matmuls", "memory_bound") for w in SUITES[s].values())


def test_least_traffic() -> None:
    x, w = np.zeros((4, 8), np.float32), np.zeros((8,), np.float32)
    forward = Operator(lambda T: None, lambda: (x, w))
    both = Operator(lambda T: None, lambda: (x, w), gradients=(0,))
    assert forward.least_bytes((x, w), 100) == 128 + 32 + 100
    assert both.least_bytes((x, w), 100) == 128 + 32 + 100 + 100 + 128


@pytest.mark.parametrize("name", ["circles", "mlp_infer", "matmul_128", "digits"])
def test_engines_do_the_same_work(name: str, tmp_path: Path) -> None:
    """graphc compiled and lazy, and torch where it is installed: equal results, three steps long."""
    engines = ["graphc", "graphc.lazy"]
    try:
        import torch  # noqa: F401
    except ImportError:
        pass
    else:
        engines += ["torch", "torch.tuned"]
    found = {}
    for engine in engines:
        options = dict(ENGINES[engine].options)
        step = tensors.build(ENGINES[engine].package, name, WORKLOADS[name], 1, tmp_path, **options)
        found[engine] = [step() for _ in range(3)]
    for engine in engines[1:]:
        for a, b in zip(found["graphc"], found[engine], strict=True):
            np.testing.assert_allclose(a[0], b[0], rtol=2e-3, atol=1e-4)


def test_jax_trains(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    step = ENGINES["jax"].build("circles", WORKLOADS["circles"], 1, tmp_path)
    losses = [float(step()[0]) for _ in range(30)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
