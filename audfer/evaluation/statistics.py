"""Former home of what ``audfer.evaluation`` holds."""

from . import *  # noqa: F403
