"""``python -m moralscope.cli`` is the command ``moralscope``."""

import sys

from moralscope.cli.main import main

sys.exit(main())
