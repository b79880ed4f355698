"""How far the model is, in the terminal that the server was started from."""

import sys
from typing import TextIO

from django.utils.translation import gettext as _

from agentsite.local_model.weights import Weights
from realtime.model_service import ModelStatus

WIDTH = 30
STEP = 0.1
"""Where nobody watches a bar, a line for each tenth is enough."""


class Terminal:
    """A bar that grows in place, or lines where the output is a file."""

    def __init__(self, weights: Weights, out: TextIO | None = None) -> None:
        self._label = f"{weights.label}, {weights.size / 1e9:.1f} GB"
        self._size = weights.size
        self._out = out or sys.stderr
        self._in_bar = False
        self._state = ""
        self._step = -1

    def tell(self, status: ModelStatus) -> None:
        if status.state == "fetching" and status.fraction is not None:
            self._fetching(status.fraction)
        elif status.state != self._state:
            self._line(status)
        self._state = status.state

    def _fetching(self, fraction: float) -> None:
        if self._state != "fetching":
            self._step = -1
            text = _("fetching {model}, this once; the chat is up meanwhile")
            self._say(text.format(model=self._label))
        done = f"{fraction * self._size / 1e6:,.0f} of {self._size / 1e6:,.0f} MB"
        if self._out.isatty():
            bar = ("#" * int(fraction * WIDTH)).ljust(WIDTH, ".")
            self._out.write(f"\ragentsite: [{bar}] {fraction:4.0%}  {done} ")
            self._out.flush()
            self._in_bar = True
        elif int(fraction / STEP) > self._step:
            self._step = int(fraction / STEP)
            self._say(f"{fraction:.0%}, {done}")

    def _line(self, status: ModelStatus) -> None:
        if status.state == "ready":
            text = _("{model} answers, on this computer; a small model makes mistakes")
            self._say(text.format(model=self._label))
        elif status.state == "failed":
            self._say(status.detail)
            self._say(
                _(
                    "other choices: OPENAI_API_KEY=..., OPENAI_BASE_URL=... with AGENT_MODEL=..., "
                    "or AGENT_MODEL=tour"
                )
            )
        else:
            self._say(status.detail)

    def _say(self, text: str) -> None:
        end = "\n" if self._in_bar else ""
        self._in_bar = False
        self._out.write(f"{end}agentsite: {text}\n")
        self._out.flush()
