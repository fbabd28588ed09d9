"""Every table and figure, from run records."""
