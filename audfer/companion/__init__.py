"""What people call: the command line, the runner of notebooks, the report, the panel."""
