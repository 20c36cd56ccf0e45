"""How training reads a data set: order first, bytes later."""
