"""The datasets, one file each: how its folders and lists are read, and what is published about it."""
