"""graphc: a symbolic graph compiler for static neural networks."""

__version__ = "0.1.0"
