"""Convolutions of 3x3 windows by Winograd's minimal filtering (Lavin & Gray 2015, arXiv:1509.09308).

A tile of 4x4 results takes 36 multiplications a channel instead of 144 (2x2: 16 instead of 36). The price is
rounding: with eps the distance from 1 to the next number, a result differs from the exact one by at most

    64 eps (tiles of 4x4), 16 eps (2x2)  *  sum over channels of  (largest |x| in the tile) * (sum of |w|)

as tests/native/test_winograd.py shows on data of very different magnitudes; on normal data it is five times
the error of direct summation. Infinities and NaNs of a source spread to the whole tile, and so do sums that
leave the range of the type. Volumes go slice by slice (volumes.py): the sum is over channels and slices.

Plans compete by cost with the direct kernels (contract.py) and must win clearly. `Machine.winograd` turns
them off: ``graphc.compile(f, options={"winograd": False})``, ``graphc.set_backend("llvm", winograd=False)``,
``graphc dump --no-winograd``.
"""
