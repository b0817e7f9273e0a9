"""`graphc.utils.data.dataloader`: where programs also import these names from."""

from graphc.utils.data.collate import default_collate, default_convert
from graphc.utils.data.loader import DataLoader
from graphc.utils.data.worker import get_worker_info

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]
