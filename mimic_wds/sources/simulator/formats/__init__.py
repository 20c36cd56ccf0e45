"""Readers of scene files (glTF, Wavefront OBJ, PLY) in numpy: every picture is decoded once, every vertex kept once."""
