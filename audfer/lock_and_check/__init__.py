"""Lock and Check (LAC): AU recognition, and its paper's tables. The core works without it."""
