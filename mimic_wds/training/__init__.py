"""Pretraining: run configs, optimizer groups, learning rate, one optimizer step, checkpoints, logs."""
