"""The tensor IR: types, interned nodes, graphs."""
