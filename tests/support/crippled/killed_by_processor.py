"""An instruction that the processor does not know."""

import os
import signal

if __name__ == "__main__":
    os.kill(os.getpid(), signal.SIGILL)
