"""Contractions: C[b, m, n] = sum over k of A[b, m, k] * B[b, k, n], whatever the operands are views of.

What is multiplied: `problem` (the canonical form), `operand` (where its elements lie), `merge` (fewer axes),
`fused` and `cells` (what else the group computes). How it is cut: `blocking`, `balance`, `split`, `depth`.
Kernels: `tiled` (packed panels and register tiles, for large problems), `direct` (plain loops), `dots`,
`long_dots`, `scaled` and `streamed` (few rows). Their parts: packing (`pack`, `panels`, `columns`, `stage`,
`prepack`, `supply`) and lines asked for before they are needed (`ahead`, `fetch`, `listed`).
`graphc.loop.lower.ways` chooses.
"""
