"""Check the version of Python, then run one task: the entry point of `make`.

This file uses only syntax that every Python can parse, so an old one prints one clear line.
"""

import sys

OLDEST = (3, 11)
COMPLAINT = (
    "agentsite: Python %d.%d or newer is needed, this is %d.%d; try: make run PYTHON=python3.13"
)


def complaint_about(version):
    """Return an error message for a Python older than the project needs, else None."""
    return COMPLAINT % (OLDEST + tuple(version[:2])) if tuple(version[:2]) < OLDEST else None


if __name__ == "__main__":
    if complaint_about(sys.version_info):
        sys.exit(complaint_about(sys.version_info))
    import tasks

    sys.exit(tasks.main(sys.argv[1:]))
