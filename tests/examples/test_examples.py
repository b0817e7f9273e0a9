"""Every example runs, lazily and compiled, with the same figures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")


def run(script: str, *args: object) -> str:
    """Standard output of an example; its progress bar goes to standard error."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def figure(output: str, pattern: str) -> float:
    match = re.search(pattern + r" ([0-9.e+-]+)", output)
    assert match, f"no {pattern!r} in {output!r}"
    return float(match.group(1).rstrip("."))


@pytest.mark.slow
def test_digits_reaches_its_accuracy(tmp_path: Path) -> None:
    output = run("digits_cnn.py", "--compile", "--out", tmp_path)
    assert figure(output, "test accuracy") >= 0.985
    assert "1 native calls per step" in output
    assert (tmp_path / "digits.png").stat().st_size > 10_000
    assert (tmp_path / "best.safetensors").exists()


def test_digits_is_the_same_lazily_and_compiled(tmp_path: Path) -> None:
    outputs = [run("digits_cnn.py", "--epochs", 2, "--out", tmp_path, *m) for m in ((), ("--compile",))]
    lazy, compiled = (figure(o, "test accuracy") for o in outputs)
    assert abs(lazy - compiled) <= 2 / 360
    assert lazy > 0.8
    assert all("1 native calls per step" in o for o in outputs)


@pytest.mark.parametrize("mode", [(), ("--compile",)], ids=["lazy", "compiled"])
def test_two_layer_forms_agree(mode: tuple[str, ...]) -> None:
    output = run("two_layer.py", *mode)
    losses = [[float(v) for v in line.split()[1:]] for line in output.splitlines()[1:21]]
    assert len(losses) == 20
    for row in losses:
        assert row[1] == pytest.approx(row[0], rel=1e-5)
        assert row[2] == pytest.approx(row[0], rel=1e-5)
    assert losses[-1][0] < 0.1 * losses[0][0]


def test_circles_separates_the_rings(tmp_path: Path) -> None:
    outputs = [run("circles.py", "--epochs", 15, "--out", tmp_path, *m) for m in ((), ("--compile",))]
    for output in outputs:
        assert figure(output, "test AUC") > 0.95
    losses = [figure(o, "final training loss") for o in outputs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert (tmp_path / "circles.png").stat().st_size > 10_000


@pytest.mark.slow
def test_resnet_on_drawn_images() -> None:
    # At the default rate rounding grows: two runs of PyTorch, on one and on two threads, part ways as well.
    small = ("--width", 8, "--samples", 320, "--epochs", 2, "--lr", 2e-4)
    outputs = [run("resnet_cifar.py", *small, *m) for m in ((), ("--compile",))]
    losses = [figure(o, "last loss") for o in outputs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert "drawn images" in outputs[0]


def test_resnet_reads_cifar_files(tmp_path: Path) -> None:
    """Two tiny files in the layout of CIFAR-10's binary version."""
    import numpy as np

    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        records = rng.integers(0, 256, (8, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(tmp_path / name)
    output = run("resnet_cifar.py", "--data", tmp_path, "--width", 4, "--batch-size", 8, "--epochs", 1)
    assert "40 training and 8 test images" in output


def test_resnet_names_missing_files(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "resnet_cifar.py"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "data_batch_1.bin" in done.stderr


def test_tagger_learns_its_sentences(tmp_path: Path) -> None:
    options = ("--plot", tmp_path / "loss.png")
    outputs = [run("lstm_tagger.py", *options, *m) for m in ((), ("--compile",))]
    losses = [figure(o, "final training loss") for o in outputs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for output in outputs:
        assert figure(output, "training accuracy") == 1
        assert figure(output, "held-out accuracy") > 0.9
    assert "cat: noun  slowly: adverb  watches: verb" in outputs[0]
    assert (tmp_path / "loss.png").stat().st_size > 5_000


@pytest.mark.slow
def test_sequence_gru_forecasts(tmp_path: Path) -> None:
    output = run("sequence_gru.py", "--compile", "--plot", tmp_path / "forecast.png")
    assert figure(output, "unexplained part") < 0.01
    assert figure(output, "error of the forecast") < 0.25 * figure(output, "linear regression")
    assert (tmp_path / "forecast.png").stat().st_size > 10_000


def test_sequence_gru_is_the_same_lazily_and_compiled() -> None:
    short = ("--steps", 30, "--count", 3000)
    outputs = [run("sequence_gru.py", *short, *m) for m in ((), ("--compile",))]
    for name in ("unexplained part", "error of the forecast"):
        lazy, compiled = (figure(o, name) for o in outputs)
        assert lazy == pytest.approx(compiled, rel=2e-2)
    assert figure(outputs[0], "unexplained part") < 0.9
