"""The loop IR and the lowering of groups of nodes to it.

`ir` is the grammar: what a kernel may say. `index` simplifies the index arithmetic in it, `printer` and
`parser` write and read it, `verify` checks it, `interpret` (by `as_python`) runs it. `lower` writes kernels;
`lowered` is what it gives: calls of kernels on values. `inplace` and `scratch` tell the plan what a kernel
allows and needs.
"""
