"""The means over a batch of measured answers, as the run's metrics.

pf run show-metrics --name RUN
"""

from __future__ import annotations

from promptflow.core import log_metric, tool


@tool
def means(measures: list[dict]) -> dict[str, float]:
    """The mean of each measure over the lines that were measured."""
    lines = [line for line in measures if line]
    found = {name: sum(line[name] for line in lines) / len(lines) for name in lines[0]} if lines else {}
    for name, value in found.items():
        log_metric(name, value)
    return found
