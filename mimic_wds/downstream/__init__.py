"""Finetuning and evaluation: tasks, their losses, metrics and optimizers."""
