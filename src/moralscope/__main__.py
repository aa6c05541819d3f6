"""``python -m moralscope`` is the command ``moralscope``; launchers start it so."""

import sys

from moralscope.cli.main import main

sys.exit(main())
