"""Backends of graphc, found by name through the entry-point group ``graphc.backends``."""
