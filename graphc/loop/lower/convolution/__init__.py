"""Convolutions and their two gradients, as contractions over windows.

`as_contraction` gives each the canonical form, which the kernels of contractions can run. Kernels of their
own: `windows` (planes in place), `bands` and `weight_bands` (bands of rows), `channels` (channels last),
`depthwise`, `grouped`, `spread` and `winograd`; `pad`, `phases` and `planes` copy a source so that windows
become shifts.
"""
