"""`make drills`: the 15 fault drills on the processes that `make cluster` starts."""
