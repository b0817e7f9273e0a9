"""Tools beside the layers: `graphc.utils.data`."""

from graphc.utils import data

__all__ = ["data"]
