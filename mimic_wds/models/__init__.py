"""Models: ViT encoder, MAE, CroCo. Nothing of ours is imported here but `settings`."""
