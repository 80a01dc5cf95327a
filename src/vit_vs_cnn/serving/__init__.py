"""The registered model at work: predictions for files on disk, and over HTTP."""
