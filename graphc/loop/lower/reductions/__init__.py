"""Loops of groups with reductions: softmax, norms, losses and their gradients, a row at a time.

`rows` says what a group is made of, `choose` which loops it gets, `sweeps` writes them; `crossing` adds what
is summed across rows, `stages` cuts few rows or wide columns among tasks, `interchange` turns the loops over
columns that come from memory, `keep` and `quotient` save work between sweeps.
"""
