"""Traces: functions that are run once, on tensors without values, and what becomes of what they did.

`trace` runs them, `record` is the graph that is left, `body` that of a loop's body; `graphs` shows it. A
record and its program for one signature are a `variant`, which `compile` calls; `deferred` puts calls off,
with the backward passes of their results and what changes gradients (`changes`), as `events`, and `replay`
builds their graphs again where those are differentiated.
"""
