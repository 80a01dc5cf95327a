"""ViT or CNN? A measured answer on your own images."""
