"""Runs the terminal client without Django."""

import sys
from argparse import ArgumentParser

from agentsite.terminal import DESCRIPTION, add_arguments, run

parser = ArgumentParser(prog="python -m agentsite.terminal", description=DESCRIPTION)
add_arguments(parser, "http://127.0.0.1:8000")
sys.exit(run(vars(parser.parse_args())))
