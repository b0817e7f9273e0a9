"""The character language models learn, sample, and go on from their checkpoints with the same figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from .test_examples import figure, run

SMALL = ("--width", 32, "--depth", 1, "--length", 32, "--batch-size", 16, "--every", 20, "--sample", 30)
LAST = "last training loss"


@pytest.mark.parametrize("script", ["char_gpt.py", "char_lstm.py"])
def test_resumed_training_is_the_same(script: str, tmp_path: Path) -> None:
    """40 steps at once, lazily and compiled, and as 20 and 20."""
    whole = run(script, *SMALL, "--steps", 40, "--out", tmp_path / "whole", "--compile", "--plot")
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 10_000
    lazy = run(script, *SMALL, "--steps", 40, "--out", tmp_path / "lazy")
    assert figure(lazy, LAST) == pytest.approx(figure(whole, LAST), rel=1e-4)

    halves = tmp_path / "halves"
    first = run(script, *SMALL, "--steps", 20, "--out", halves, "--compile")
    second = run(script, *SMALL, "--steps", 40, "--out", halves, "--compile", "--resume")
    assert figure(first, LAST) > figure(second, LAST)
    for text in (LAST, "bits per character"):
        assert figure(second, text) == figure(whole, text)
    assert second.startswith("Return the ")
    assert second[:41] == whole.partition("curves.png\n")[2][:41]  # the same sampled text


@pytest.mark.slow
@pytest.mark.parametrize("script", ["char_gpt.py", "char_lstm.py"])
def test_characters_are_learned(script: str, tmp_path: Path) -> None:
    """Context helps: far fewer bits than the frequencies of characters alone need."""
    size = ("--width", 64, "--depth", 2, "--length", 64)
    output = run(script, *size, "--steps", 500, "--compile", "--sample", 10, "--out", tmp_path)
    assert figure(output, "bits per character") < 3.4
    assert 4.5 < figure(output, "without any context") < 5.0
