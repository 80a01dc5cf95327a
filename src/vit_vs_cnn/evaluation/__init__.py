"""What a trained model is worth: metrics with intervals, calibration, paired significance, cost."""
