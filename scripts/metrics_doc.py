"""Describes every metric in Markdown, from the module that defines them."""

from collections.abc import Iterator

from prometheus_client import Metric
from schema_words import table

from realtime.telemetry.metrics import REGISTRY

PREFIX = "agentsite_"


def list_metrics() -> Iterator[Metric]:
    """Yield the site's own metrics, in the order of their definitions."""
    return (metric for metric in REGISTRY.collect() if metric.name.startswith(PREFIX))


def name_of(metric: Metric) -> str:
    """Return the name under which a metric is asked for."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def metrics() -> str:
    """Return a table of all metrics."""
    rows = [
        (f"`{name_of(each)}`", each.type, ", ".join(labels_of(each)), each.documentation)
        for each in list_metrics()
    ]
    return table(("name", "type", "labels", "meaning"), rows)


def labels_of(metric: Metric) -> list[str]:
    collector = REGISTRY._names_to_collectors[metric.name]
    return [f"`{name}`" for name in getattr(collector, "_labelnames", ())]
