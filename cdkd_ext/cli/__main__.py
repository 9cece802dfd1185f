"""`python -m cdkd_ext.cli`."""

import sys

from cdkd_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())
