"""Engines that run the scenes of a build: in this process, on the processes of one machine, on a Ray cluster."""
