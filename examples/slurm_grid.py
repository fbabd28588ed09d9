"""A profile's grid on a SLURM cluster: one job, one GPU, one Dask worker, one cell at a time.

Look at the job first, then start it on a machine from which jobs are submitted and which has a GPU itself (an
interactive job), because the clips are made and packed here. It can be stopped and started again at any time: finished
cells are found, others go on from their last epoch. The command line does the same: ``audfer grid --profile gpu --slurm
jobs=8 gpus=1 ...``.

    python examples/slurm_grid.py --dry-run
    python examples/slurm_grid.py --profile gpu --jobs 8 --queue gpu --walltime 12:00:00
"""

import argparse

from audfer.jobs.executors import dask_client, job_script, slurm_cluster

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--profile", default="gpu")
parser.add_argument("--work", default="", help="folder on a disk that all jobs share")
parser.add_argument("--jobs", type=int, default=4)
parser.add_argument("--queue", default="gpu")
parser.add_argument("--account")
parser.add_argument("--walltime", default="12:00:00")
parser.add_argument("--dry-run", action="store_true", help="print the script of one job and submit nothing")
chosen = parser.parse_args()

# a job is one worker with one GPU; its eight cores decode and augment
cluster = {
    "jobs": chosen.jobs,
    "gpus": 1,
    "queue": chosen.queue,
    "account": chosen.account,
    "walltime": chosen.walltime,
    "cores": 8,
    "memory": "32GB",
}
if chosen.dry_run:
    print(job_script(cluster))
else:
    from audfer.study.outputs import with_cells
    from audfer.study.study import open_study

    study = open_study(chosen.profile, chosen.work)
    with dask_client(slurm=slurm_cluster(cluster, str(study.work / "slurm_logs"))) as client:
        table = study.train(study.noted_cells(*with_cells()), "grid", executor=client)
    print(table[["model", "dataset", "au_ratio", "strategy", "seed", "trained", "error"]].to_string())
