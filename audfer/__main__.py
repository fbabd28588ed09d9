"""``python -m audfer``, which ``torchrun -m audfer`` needs."""

import sys

from .cli import main

sys.exit(main())
