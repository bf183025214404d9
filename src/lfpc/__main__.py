"""`python -m lfpc` is `lfpc`."""

import sys

from lfpc.cli import main

sys.exit(main())
