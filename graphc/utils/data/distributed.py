"""`graphc.utils.data.distributed`: where programs also import DistributedSampler from."""

from graphc.utils.data.sampler import DistributedSampler

__all__ = ["DistributedSampler"]
