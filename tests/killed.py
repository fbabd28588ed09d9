"""A process that is killed while it writes; a module of its own, which a fresh process imports in no time."""

import os
import signal


def make_and_die(folder, key, cell, inputs, name, moment):
    """Make a record, but be killed when the file or folder of that name is put in its place: before it or after."""
    from audfer.training.records import make_record

    put = os.replace

    def replaced(source, place):
        if moment == "after":
            put(source, place)
        if os.path.basename(place) == name:
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "before":
            put(source, place)

    os.replace = replaced
    make_record(folder, key, cell, inputs)
