"""`python -m conceptbench`: the command line."""

import sys

from conceptbench.cli import main

sys.exit(main())
