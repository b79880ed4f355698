"""The drills' settings in a process whose clock is ahead of all others."""

from datetime import UTC, datetime, timedelta

import time_machine

from tests.support.drill_settings import *  # noqa: F403

AHEAD = timedelta(seconds=120)

time_machine.travel(datetime.now(UTC) + AHEAD).start()
