"""Ends as by an instruction that the processor lacks."""

import os
import signal

if __name__ == "__main__":
    os.kill(os.getpid(), signal.SIGILL)
