"""Sources of images: the official CIFAR-10 archive, any image folder, scikit-learn's digits."""
