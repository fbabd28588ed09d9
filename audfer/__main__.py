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
    # not where a shell has it ignored
    heeded = (signal.SIGINT,) if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else ()
    _answer(_quiet, *heeded)
    if heeded:
        # registered first, so done last: while it ends, Python heeds no handler and would die of the signal
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    from .companion import cli

    try:
        _answer(cli.interrupt, signal.SIGTERM, *heeded)
        return cli.main()
    except KeyboardInterrupt:  # before or after what answers it
        return _quiet()
    finally:
        _answer(_quiet, *heeded)


def _answer(how, *signals) -> None:
    for number in signals:
        signal.signal(number, how)


if __name__ == "__main__":
    sys.exit(main())
