"""The ``audfer`` command, and ``python -m audfer``, which ``torchrun -m audfer`` needs.

Ctrl-C is answered from the first line on: what the command line is made of takes up to a second to import.
"""

import atexit
import os
import signal
import sys


def _quiet(*_) -> None:
    """End at once, where nothing has begun yet or everything is done."""
    if os.environ.get("RANK", "0") == "0":
        os.write(2, b"audfer: interrupted\n")
    os._exit(130)


def main() -> int:
    """Run ``cli.main`` without a moment in which Ctrl-C would end in a traceback; returns the exit code."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where a shell has it ignored
    if heeded:
        signal.signal(signal.SIGINT, _quiet)
        # registered first, so done last: while it ends, Python heeds no handler and would die of the signal
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    from .companion import cli

    try:
        return cli.main()
    finally:
        if heeded:
            signal.signal(signal.SIGINT, _quiet)


if __name__ == "__main__":
    sys.exit(main())
