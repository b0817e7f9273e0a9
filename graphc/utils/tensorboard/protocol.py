"""The one place that imports the tensorboard package: its messages and its writer of event files."""

from __future__ import annotations

try:
    from tensorboard.compat.proto.attr_value_pb2 import AttrValue
    from tensorboard.compat.proto.config_pb2 import RunMetadata
    from tensorboard.compat.proto.event_pb2 import Event, TaggedRunMetadata
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.node_def_pb2 import NodeDef
    from tensorboard.compat.proto.step_stats_pb2 import DeviceStepStats, StepStats
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.compat.proto.versions_pb2 import VersionDef
    from tensorboard.plugins.hparams import api_pb2 as hparams_api
    from tensorboard.plugins.hparams import metadata as hparams_metadata
    from tensorboard.plugins.hparams import plugin_data_pb2 as hparams_data
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
except ImportError as error:
    raise ImportError(
        "graphc.utils.tensorboard needs TensorBoard: pip install 'graphc[tensorboard]'"
    ) from error

__all__ = [
    "DT_STRING",
    "AttrValue",
    "DeviceStepStats",
    "Event",
    "EventFileWriter",
    "GraphDef",
    "HistogramProto",
    "NodeDef",
    "RunMetadata",
    "StepStats",
    "Summary",
    "SummaryMetadata",
    "TaggedRunMetadata",
    "TensorProto",
    "TensorShapeProto",
    "VersionDef",
    "hparams_api",
    "hparams_data",
    "hparams_metadata",
]
