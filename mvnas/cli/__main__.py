"""`python -m mvnas.cli` is `mvnas`."""

import sys

from mvnas.cli import main

if __name__ == "__main__":
    sys.exit(main())
