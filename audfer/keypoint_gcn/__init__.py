"""The key-point graph network (Huang et al. 2024): a fourth backbone, and its paper's tables. The core runs without."""
