"""Logs for TensorBoard: `SummaryWriter`, with the interface of ``torch.utils.tensorboard``.

Needs the tensorboard package (an extra): ``pip install 'graphc[tensorboard]'``. Pictures need Pillow too.
"""

from graphc.utils.tensorboard.writer import SummaryWriter

__all__ = ["SummaryWriter"]
