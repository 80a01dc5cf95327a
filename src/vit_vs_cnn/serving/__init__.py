"""Predictions of the registered model: for files on disk, and over HTTP."""
