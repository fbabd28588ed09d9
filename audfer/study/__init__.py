"""A profile and its chain of steps, each made once and found again."""
