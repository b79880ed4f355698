"""A stand-in for the embedded model's process: prints many lines before it is ready."""

import json
import sys

sys.stdin.readline()
sys.stderr.write("x" * 1_000_000)
sys.stderr.flush()
sys.stdout.write(json.dumps({"state": "ready", "url": "http://127.0.0.1:1/v1"}) + "\n")
sys.stdout.flush()
sys.stdin.read()
