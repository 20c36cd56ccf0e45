"""Metrics as pure functions: what each image adds (statistics), and scores of their sums."""
