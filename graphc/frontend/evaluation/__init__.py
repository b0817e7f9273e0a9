"""Lazy evaluation: which nodes are computed when, and by which program.

`lazy` computes what is read, and all that is pending; `along` and `relatives` say what is computed with it,
`rounds` when a loop that reads nothing computes. A program is found by the structure of its graph
(`canonical`), whatever places of data it reads (`parts`), or compiled (`compiler`).
"""
