"""``python -m gdsl`` is the ``gdsl`` command."""

import sys

from gdsl.cli import main

if __name__ == "__main__":
    sys.exit(main())
