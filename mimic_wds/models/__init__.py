"""Models: ViT encoder, MAE, CroCo, DINO, published weights. Nothing of ours is imported here but `settings`."""
