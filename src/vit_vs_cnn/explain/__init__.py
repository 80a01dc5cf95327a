"""What a trained model looks at: attention, Grad-CAM, filters, feature maps."""
