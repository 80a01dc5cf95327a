"""Augmentation of whole batches by tensor operations, each image with its own random draw."""
