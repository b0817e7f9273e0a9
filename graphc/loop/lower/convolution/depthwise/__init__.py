"""Depthwise convolutions (a channel is a group of its own) and their gradients, as plain loops.

There is nothing to contract: every result takes as many multiply-adds as the window has taps, so memory
decides. `choose` picks a kernel: `in_place` reads rows where they are; `on_planes` copies whole planes into
scratch first, where rows are shorter than vectors, have gaps, or are computed on the way. `kernel` has what
the two share.
"""
