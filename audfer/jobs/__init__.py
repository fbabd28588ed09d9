"""Running many things: processes, Dask, SLURM, retries."""
