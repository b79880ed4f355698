"""What the process that is forked imports; see `tests.support.warm`."""

from tests.support.warm import import_all

import_all()
