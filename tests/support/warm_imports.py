"""The imports of the process that is forked; see `tests.support.warm`."""

from tests.support.warm import import_all

import_all()
