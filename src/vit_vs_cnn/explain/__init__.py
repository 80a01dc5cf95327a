"""Explanations of a trained model: attention, Grad-CAM, filters, feature maps."""
