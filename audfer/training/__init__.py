"""Training: recipes, augmentation, the loop that fits one cell, masked pre-training, and the store of run records."""
