"""Where an agent can walk in a 3D scene: read from a navigation mesh, or found in the scene's triangles."""
