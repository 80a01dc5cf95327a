"""From a source of images to arrays on disk: reading, checking, splitting, storing, augmenting, loading."""
