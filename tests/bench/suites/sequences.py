"""Networks over sequences: training steps of recurrent nets and transformers, and attention by itself."""

from __future__ import annotations

from typing import Any

from tests.bench import networks
from tests.bench.workload import Operator, Training, Workload, classes, floats, integers
from tests.parity import models, sequences


def _attention(T: Any) -> Any:
    return T.nn.functional.scaled_dot_product_attention


def _gpt(T: Any) -> Any:
    return models.gpt(T, 128, 128, 256, 8, 4)


# Operations of the matrix products of one step, forward and backward.
WORKLOADS: dict[str, Workload] = {
    "lstm_lm": Training(
        sequences.lstm_lm,
        lambda: (integers(128, 32, 64, seed=0), integers(128, 32 * 64)),
        optimizer="Adam",
        options={"lr": 1e-3},
        flops=11.7e9,
    ),
    "gru_seq": Training(
        sequences.gru_seq, floats((8, 200, 64), (8, 200, 1)), "MSELoss", "Adam", {"lr": 1e-3}, 0.069e9
    ),
    "lstm_tagger": Training(
        sequences.lstm_tagger,
        lambda: (integers(9, 5, seed=0), integers(3, 5)),
        "NLLLoss",
        options={"lr": 0.1},
    ),
    "char_transformer": Training(
        _gpt,
        lambda: (integers(128, 16, 128, seed=0), integers(128, 16 * 128)),
        optimizer="Adam",
        options={"lr": 3e-4},
        flops=42.3e9,
    ),
    "transformer_encoder": Training(
        networks.encoder,
        classes((16, 64, 128), 10),
        optimizer="Adam",
        options={"lr": 3e-4},
        flops=2.5e9,
    ),
    "attention_512": Operator(  # two products forward, five backward, as the scores are computed again
        _attention, floats(*[(4, 8, 512, 64)] * 3), (0, 1, 2), flops=7 * 2.0 * 4 * 8 * 512 * 512 * 64
    ),
}
