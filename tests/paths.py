"""Where things lie that tests read."""

from pathlib import Path

HERE = Path(__file__).parent
#: the checkout
ROOT = HERE.parent
#: small inputs that came with the tests
DATA = HERE / "data"
#: real files beside the checkout, on some machines only; tests that read them skip where they are not
SHARED = ROOT.parent / "shared"
