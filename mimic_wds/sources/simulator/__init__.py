"""Rendered views: a software rasteriser (numba), a small furnished house, a walk through it, its film."""
