"""Convolutions of small windows by Winograd's minimal filtering (Lavin & Gray 2015, arXiv:1509.09308).

Along an axis, tiles have 6 elements of the source, or 4, and r taps leave 7 - r results, or 5 - r: under
windows of 3x3 a tile of 4x4 results takes 36 multiplications a channel instead of 144 (2x2: 16 instead of
36), under 5x5 one of 2x2 36 instead of 100, under 2x2 one of 5x5 36 instead of 100. The price is rounding:
with eps the distance from 1 to the next number, a result differs from the exact one by at most

    64 eps (tiles of 6x6), 16 eps (4x4)  *  sum over channels of  (largest |x| in the tile) * (sum of |w|)

as tests/native/test_winograd.py shows on data of very different magnitudes; on normal data it is five times
the error of direct summation. Infinities and NaNs of a source spread to the whole tile, and so do sums that
leave the range of the type.

Other convolutions are written as such ones: volumes go slice by slice (volumes.py; the sum is over channels
and slices), lines are columns (lines.py), dilated images are smaller ones (dilated.py), strided windows see
phases of the source as channels (phases.py), and the data gradient of those has phases of its own. Weight
gradients, at unit stride: weight_grad.py.

Plans compete by cost with the direct kernels (contract.py) and must win clearly. `Machine.winograd` turns
them off: ``graphc.compile(f, options={"winograd": False})``, ``graphc.set_backend("llvm", winograd=False)``,
``graphc dump --no-winograd``.
"""
