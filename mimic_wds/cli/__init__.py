"""The `mimic-shard` command, one module per verb. Torch-free."""
