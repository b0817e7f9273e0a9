"""Convolutions of 3x3 windows by Winograd's minimal filtering (Lavin & Gray 2015, arXiv:1509.09308)."""
