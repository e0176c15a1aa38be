"""`python -m drape` is the command `drape`."""

import sys

from drape.cli.main import main

sys.exit(main())
