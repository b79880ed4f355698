"""Finds what has happened to a cluster from nothing but the metrics of its processes."""

from collections.abc import Mapping

Scraped = Mapping[str, Mapping[str, float]]
"""The metrics of each process by its name, added up over labels."""

CAUSES = {
    "the database was away": "agentsite_batches_in_doubt_total",
    "a worker died": "agentsite_leases_expired_total",
    "the channel layer was away": "agentsite_layer_failures_total",
}
"""From cause to effect: without its database a worker may lose its leases too."""

STARTED = "process_start_time_seconds"


def find_fault(before: Scraped, after: Scraped) -> tuple[str, set[str]]:
    """Return what went wrong between two scrapes, and the processes that were started again."""
    again = {name for name in after if after[name][STARTED] != before[name][STARTED]}
    for cause, counter in CAUSES.items():
        for name, counts in after.items():
            start = 0 if name in again else before[name][counter]
            if counts[counter] > start:
                return cause, again
    return "", again
