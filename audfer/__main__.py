"""``python -m audfer``, which ``torchrun -m audfer`` needs."""

import sys

from .companion.cli import main

sys.exit(main())
