"""The errors a user can mend. Everything else is a bug and keeps its traceback."""

import re

#: all but line ends and tabs
_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")


class AudferError(Exception):
    """Something the user gave or the machine lacks.

    The message is one plain sentence. The command line exits with 2.
    """


class InputError(AudferError, ValueError):
    """A file or setting is not as it should be.

    The sentence always has the same four parts, so that a reader of a log knows where to look:
    *where* (file), *which field*, *what was found* and *what was expected*.

    Example:
        >>> raise InputError("labels.csv", "row 3, column label", "9", "a number from 1 to 7")
        Traceback (most recent call last):
        ...
        audfer.errors.InputError: labels.csv: row 3, column label: found 9, expected a number from 1 to 7
    """

    def __init__(self, where, field: str, found, expected: str):
        self.where, self.field, self.found, self.expected = str(where), field, found, expected
        super().__init__(harmless(f"{where}: {field}: found {found}, expected {expected}"))

    def __reduce__(self):  # so that it survives the trip from a worker process
        return type(self), (self.where, self.field, self.found, self.expected)


def legible(text: str) -> str:
    """A text with the bytes spelled out that are no UTF-8: names out of other systems' archives cannot be printed."""
    return text.encode(errors="backslashreplace").decode()


def harmless(text: str) -> str:
    """A text out of somebody else's file for a terminal: legible, and without what would move its cursor, change its
    title or turn the direction of reading.
    """
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], legible(text))


def refuse(where, checks) -> None:
    """Raise the first objection of a table of checks.

    Args:
        checks: (whether it is wrong, field, found, expected) each, in order; from a generator one by one, so that a
            check may presume what those before it say.

    Raises:
        InputError: something is wrong.
    """
    for wrong, field, found, expected in checks:
        if wrong:
            raise InputError(where, field, found, expected)
