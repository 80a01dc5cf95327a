"""params.yaml as frozen, strict settings, the only shape in which parameters travel through the code."""
