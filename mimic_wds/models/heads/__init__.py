"""Heads that turn an encoder's tokens into depth, normals, classes of pixels, joints and labels."""
