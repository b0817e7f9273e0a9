"""`graphc dump`: every stage of a model, a function and a compiled step; round trip; clear errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from graphc.__main__ import main
from graphc.ir.parser import parse_graph
from graphc.ir.printer import print_graph
from graphc.ops.op import REGISTRY

PROGRAM = """
import graphc
from graphc import nn
import graphc.nn.functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x):
        return self.fc(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))

def attention(q, k, v):
    return F.softmax(q @ k.transpose(-1, -2), dim=-1) @ v

model = Net()
optimizer = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

@graphc.compile
def step(x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss

number = 3
"""

NET = ["--input", "2x1x8x8"]
STEP = ["--input", "2x1x8x8", "--input", "2:int64"]
STAGES = [
    "trace",
    "simplify",
    "fold",
    "scans",
    "beside",
    "rowdot",
    "sums",
    "cleanup",
    "checks",
    "layout",
    "remat",
    "partition",
    "loops",
    "plan",
    "llvm",
    "llvm-opt",
    "asm",
]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "dumped_program.py"
    path.write_text(PROGRAM)
    return path


def dump(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["dump", *map(str, args)]) == 0
    return capsys.readouterr().out


def failure(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["dump", *map(str, args)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name, inputs", [("Net", NET), ("model", NET), ("step", STEP)])
def test_every_stage_is_written(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, inputs: list[str]
) -> None:
    dump(capsys, f"{program}:{name}", *inputs, "-o", tmp_path / "out")
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == [f"{i:02d}_{stage}.txt" for i, stage in enumerate(STAGES)]
    texts = {stage: (tmp_path / "out" / f"{i:02d}_{stage}.txt").read_text() for i, stage in enumerate(STAGES)}
    assert "conv(" in texts["trace"]
    assert "in Net.conv" in texts["trace"]
    assert f"{program.name}:" in texts["trace"]
    assert "lower bound" in texts["plan"]
    assert "define void @" in texts["llvm"]
    assert "ret" in texts["asm"]
    if name == "step":
        assert "conv_weight_grad(" in texts["trace"]


def test_a_function_and_its_joint_graph(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = ["--input", "2x4x8", "--input", "2x4x8", "--input", "2x4x8"]
    traced = dump(capsys, f"{program}:attention", *inputs, "--stage", "trace")
    assert traced.count("dot_general(") == 2
    joint = dump(capsys, f"{program}:attention", *inputs, "--grad", "--stage", "joint")
    assert joint.count("dot_general(") == 6
    assert "grad_" in joint


@pytest.mark.parametrize("stage", STAGES[:7])
def test_graphs_parse_back_into_the_same_graph(
    program: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    text = dump(capsys, f"{program}:step", *STEP, "--stage", stage)
    again = parse_graph(text, REGISTRY)
    assert print_graph(again) == text


def test_the_text_is_deterministic(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = dump(capsys, f"{program}:Net", *NET, "--after", "cleanup")
    assert first == dump(capsys, f"{program}:Net", *NET, "--after", "cleanup")


def test_a_saved_graph_is_a_target(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "net.graph"
    saved.write_text(dump(capsys, f"{program}:Net", *NET, "--stage", "trace"))
    assert dump(capsys, saved, "--stage", "trace") == saved.read_text()
    assert "define void @" in dump(capsys, saved, "--stage", "llvm")


@pytest.mark.parametrize("stage", ["trace", "partition"])
def test_drawings(program: Path, capsys: pytest.CaptureFixture[str], stage: str) -> None:
    target = [f"{program}:step", *STEP, "--stage", stage]
    root = ElementTree.fromstring(dump(capsys, *target, "--format", "svg"))
    assert len(list(root.iter("{http://www.w3.org/2000/svg}text"))) > 5
    dot = dump(capsys, *target, "--format", "dot")
    assert dot.startswith("digraph")
    assert "->" in dot


def test_the_drawn_partition_is_the_compiled_one(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each box lists what its group writes; flags of the prelude, which is apart, are in none."""
    target = [f"{program}:step", *STEP, "--stage", "partition"]
    lines = [line for line in dump(capsys, *target).splitlines() if line.startswith("group ")]
    written = [line.partition("->")[2].count("%") for line in lines]
    boxes = [
        line for line in dump(capsys, *target, "--format", "dot").splitlines() if 'label="group ' in line
    ]
    drawn = [len(re.findall(r"\\n[a-z]+\d*\[", box)) for box in boxes]
    assert len(written) > 3
    assert drawn == written


def test_json(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(dump(capsys, f"{program}:Net", *NET, "--stage", "trace", "--format", "json"))
    assert {"conv", "dot_general"} <= {n["op"] for n in data["nodes"]}


def test_code_for_other_machines(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = [f"{program}:Net", *NET, "--stage", "asm", "--cpu"]
    assert "fmla" in dump(capsys, *target, "aarch64")
    wide = dump(capsys, *target, "x86-64-v4")
    narrow = dump(capsys, *target, "x86-64-v3")
    assert "%zmm" in wide
    assert "%zmm" not in narrow
    assert "%ymm" in narrow


def test_timing(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = dump(capsys, f"{program}:Net", *NET, "--stage", "trace", "--timing")
    assert "partition" in out


def test_timing_alone_is_two_tables(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages, kernels = (
        [line.split() for line in table.splitlines()]
        for table in dump(capsys, f"{program}:Net", *NET, "--grad", "--timing").split("\n\n")
    )
    assert [row[0] for row in stages[:2]] == ["stage", "trace"]
    assert sum(float(row[1]) for row in stages[1:]) > 1
    head, *rows, total = kernels
    assert (head[0], total[0]) == ("kernel", "sum")
    columns = [[float(x) for x in row[1:]] for row in rows]
    assert all(row[5] > 0 and row[-2] > 0 and row[-1] > 0 for row in columns)
    for sums, column in zip(map(float, total[1:]), zip(*columns, strict=True), strict=True):
        assert sum(column) == pytest.approx(sums, abs=0.01 * len(rows))
    totals = [row[6] for row in columns]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize(
    "target, args, said",
    [
        ("missing.py:Net", [], "no file"),
        ("{program}", [], "NAME"),
        ("{program}:Nothing", [], "has no 'Nothing' (it has"),
        ("{program}:number", [], "expected a Module, a function or a compiled step"),
        ("{program}:Net", ["--input", "2xx3"], "1x3x224x224"),
        ("{program}:Net", ["--input", "2x1x8x8:float17"], "float17"),
        ("{program}:Net", ["--input", "2x3x8x8"], "Net.conv"),
        ("{program}:Net", [], "0 --input"),
        ("{program}:Net", [*NET, "--stage", "wrong"], "no stage 'wrong' (there are trace"),
        ("{program}:Net", [*NET, "--stage", "asm", "--format", "svg"], "no graph"),
        ("{program}:Net", [*NET, "--cpu", "z80"], "z80"),
        ("{program}:Net", [*NET, "--stage", "trace", "-o", "/proc/nowhere"], "cannot write"),
        ("/dev/null", [], "no graph"),
        ("nowhere.graph", [], "cannot read"),
    ],
)
def test_mistakes_are_explained(
    program: Path, capsys: pytest.CaptureFixture[str], target: str, args: list[str], said: str
) -> None:
    assert said in failure(capsys, target.format(program=program), *args)


def test_python_m_graphc(program: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "graphc", "dump", f"{program}:Net", *NET, "--stage", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == STAGES


def test_cache_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setitem(os.environ, "GRAPHC_CACHE", str(folder))
    assert main(["cache", "info"]) == 0
    assert f"{folder}: 0 files" in capsys.readouterr().out
    monkeypatch.setitem(os.environ, "GRAPHC_CACHE", "off")
    assert main(["cache", "info"]) == 0
    assert "off" in capsys.readouterr().out
