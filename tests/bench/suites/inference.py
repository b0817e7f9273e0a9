"""One forward pass of a trained network, mostly on one example."""

from __future__ import annotations

from typing import Any

from tests.bench import networks
from tests.bench.workload import Inference, Workload, floats
from tests.parity import sequences


def _encoder_layer(T: Any) -> Any:
    """A layer as wide as BERT's."""
    return T.nn.TransformerEncoderLayer(768, 12, 3072, 0.1, "gelu", batch_first=True)


WORKLOADS: dict[str, Workload] = {
    "mlp_infer": Inference(networks.mlp, floats((1, 784)), 1.34e6),
    "resnet50_infer": Inference(networks.resnet50, floats((1, 3, 224, 224)), 8.18e9),
    "mobilenetv2_infer": Inference(networks.mobilenetv2, floats((1, 3, 224, 224)), 0.602e9),
    "encoder_layer_infer": Inference(_encoder_layer, floats((1, 128, 768)), 1.86e9),
    "lstm_infer": Inference(sequences.lstm_infer, floats((1, 100, 128)), 0.681e9),
}
