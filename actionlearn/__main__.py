"""`python -m actionlearn` is `actionlearn`."""

import sys

from actionlearn.cli import main

if __name__ == "__main__":
    sys.exit(main())
