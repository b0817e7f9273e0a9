"""Kernels of equal programs have equal keys in every process, whatever it has compiled before: what one
process leaves in the disk cache is what another looks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAMS = """
import json, sys
import graphc as gc
from graphc import pipeline
from graphc.loop.printer import kernel_key

found = []
real = pipeline.lower

def lower(*args, **kwargs):
    planned = real(*args, **kwargs)
    found[:] = [kernel_key(kernel) for kernel in planned.plan.kernels]
    return planned

pipeline.lower = lower

def step(model, *data):
    gc.manual_seed(0)
    optimizer = gc.optim.Adam(model.parameters(), lr=1e-3)

    @gc.compile
    def train(*data):
        optimizer.zero_grad()
        loss = (model(*data) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    train(*data)

nn = gc.nn

def images():
    layers = nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3)
    step(nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 5)), gc.ones(4, 2, 12, 12))

def words():
    step(nn.TransformerEncoderLayer(12, 2, 20, dropout=0.1, batch_first=True), gc.ones(3, 5, 12))

def steps():
    step(First(nn.GRU(5, 7, batch_first=True)), gc.ones(3, 6, 5))

class First(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]

for name in sys.argv[1:]:
    globals()[name]()
print(json.dumps(found))
"""


def keys(*programs):
    """The keys of the last program's kernels, in a process that compiles these."""
    command = [sys.executable, "-c", PROGRAMS, *programs]
    environment = {**os.environ, "GRAPHC_CACHE": "off", "GRAPHC_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


@pytest.mark.parametrize("program", ["images", "words", "steps"])
def test_keys_do_not_depend_on_what_was_compiled_before(program):
    others = [name for name in ("words", "images", "steps") if name != program]
    alone = keys(program)
    assert len(alone) > 5
    assert keys(*others, program) == alone
