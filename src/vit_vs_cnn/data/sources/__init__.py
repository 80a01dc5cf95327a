"""Sources of images: official CIFAR archives, image folders, tables, torchvision's data sets, scikit-learn's digits."""
