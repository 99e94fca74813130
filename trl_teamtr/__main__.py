"""`python -m trl_teamtr`, which `accelerate launch -m trl_teamtr` runs too."""

import sys

from .cli.main import main


if __name__ == "__main__":
    sys.exit(main())
