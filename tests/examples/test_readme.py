"""The README's first program prints what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()
NUMBER = re.compile(r"\d+\.\d+")


def test_the_first_program_prints_what_is_shown() -> None:
    section = README.split("## Twenty lines")[1]
    program, shown = re.findall(r"```(?:python)?\n(.*?)```", section, re.DOTALL)[:2]
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert NUMBER.sub("#", run.stdout) == NUMBER.sub("#", shown)
    for found, expected in zip(NUMBER.findall(run.stdout), NUMBER.findall(shown), strict=True):
        assert abs(float(found) - float(expected)) < 0.003  # (the last digit is the target's)
