"""The PyTorch-shaped front end: tensors, tracing, compilation. It builds nodes and knows no kernels."""
