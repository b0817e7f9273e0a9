"""The loop IR and the lowering of groups of nodes to it."""
