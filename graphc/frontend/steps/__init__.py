"""Training steps of plain loops as single programs: forward pass, backward pass and the optimizer's update.

`joint` runs calls that have been put off together with the step, `known_step` a step on gradients that are
known (both are a `state_program`). Forward passes of plain code are taken for such calls when their backward
pass begins (`adopted`), or when their loss is read before it (`foreseen`).
"""
