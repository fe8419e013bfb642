"""Azure Monitor's metrics of endpoints and deployments: requests a minute, latencies, instances.

GET {endpoint's id}/providers/Microsoft.Insights/metrics?metricnames=RequestsPerMinute&interval=PT1M&aggregation=Average
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from devtools.rehearsal import LOCATION
from devtools.rehearsal.endpoints import deployments, validation
from devtools.rehearsal.endpoints.counters import Sample
from devtools.rehearsal.endpoints.fleet import fleet_of
from devtools.rehearsal.endpoints.online_endpoints import find
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Call, WireError

AGGREGATIONS = ("average", "minimum", "maximum", "total", "count")


@dataclass(frozen=True)
class Metric:
    """A metric that is emulated."""

    title: str
    unit: str
    value: Callable[[list[Sample]], dict[str, float]]
    """The aggregations of one interval's requests; empty: there is nothing to say of it."""


def _requests(samples: list[Sample]) -> dict[str, float]:
    count = float(len(samples))
    return {"average": count, "minimum": count, "maximum": count, "total": count, "count": count}


def _latency(samples: list[Sample]) -> dict[str, float]:
    times = [one.seconds * 1000 for one in samples]
    if not times:
        return {}
    return {
        "average": statistics.fmean(times),
        "minimum": min(times),
        "maximum": max(times),
        "total": math.fsum(times),
        "count": float(len(times)),
    }


def _percentile(percent: int) -> Callable[[list[Sample]], dict[str, float]]:
    def value(samples: list[Sample]) -> dict[str, float]:
        times = sorted(one.seconds * 1000 for one in samples)
        if not times:
            return {}
        found = times[min(len(times) - 1, math.ceil(len(times) * percent / 100) - 1)]
        return dict.fromkeys(AGGREGATIONS[:3], found)

    return value


METRICS = {
    "RequestsPerMinute": Metric("Requests Per Minute", "Count", _requests),
    "RequestLatency": Metric("Request Latency", "MilliSeconds", _latency),
} | {
    f"RequestLatency_P{percent}": Metric(f"Request Latency P{percent}", "MilliSeconds", _percentile(percent))
    for percent in (50, 90, 95, 99)
}


def of_endpoint(call: Call) -> dict[str, Any]:
    """Metrics of an endpoint; `$filter=deployment eq 'blue'` chooses one of its deployments, `'*'` each."""
    endpoint = find(call)
    wanted = _filtered(call.query.get("$filter"))
    if wanted != "*":
        return _answer(call, endpoint, [(wanted, wanted)])
    names = [one["name"] for _, one in call.rehearsal.store.all("deployments", f"{endpoint['name']}/")]
    return _answer(call, endpoint, [(name, name) for name in names])


def of_deployment(call: Call) -> dict[str, Any]:
    """Metrics of a deployment."""
    found = deployments.find(call)
    return _answer(call, found, [(None, found["name"])])


def _answer(call: Call, resource: Document, series: list[tuple[str | None, str | None]]) -> dict[str, Any]:
    """The answer of Azure Monitor.

    Args:
        series: for each, the dimension's value as it is shown and the deployment that is counted (None: all).
    """
    start, end = _timespan(call.query.get("timespan"))
    step = timedelta(seconds=validation.seconds(call.query.get("interval") or "PT1M", "interval"))
    names = [name for name in (call.query.get("metricnames") or "RequestsPerMinute").split(",") if name]
    asked = [one.strip().lower() for one in (call.query.get("aggregation") or "Average").split(",")]
    if odd := [one for one in asked if one not in AGGREGATIONS]:
        raise WireError(400, "BadRequest", f"Invalid aggregation type: {odd[0]}. Valid: {', '.join(AGGREGATIONS)}")
    known = {name.lower(): name for name in METRICS}
    for name in names:
        if name.lower() not in known:
            raise WireError(
                400,
                "BadRequest",
                f"Failed to find metric configuration for provider: Microsoft.MachineLearningServices, resource Type: "
                f"{resource['type'].partition('/')[2]}, metric: {name}, Valid metrics: {','.join(METRICS)}",
            )
    counters, endpoint = fleet_of(call.rehearsal).counters, call.params["endpoint"]
    values = []
    for name in (known[name.lower()] for name in names):
        metric = METRICS[name]
        lines = []
        for shown, deployment in series:
            samples = counters.between(endpoint, deployment, start.timestamp(), end.timestamp())
            data = _data(metric, samples, start, end, step, asked)
            dimension = [{"name": {"value": "deployment", "localizedValue": "deployment"}, "value": shown}]
            lines.append({"metadatavalues": dimension if shown else [], "data": data})
        values.append(
            {
                "id": f"{resource['id']}/providers/Microsoft.Insights/metrics/{name}",
                "type": "Microsoft.Insights/metrics",
                "name": {"value": name, "localizedValue": metric.title},
                "unit": metric.unit,
                "timeseries": lines,
                "errorCode": "Success",
            }
        )
    return {
        "cost": 0,
        "timespan": f"{_written(start)}/{_written(end)}",
        "interval": call.query.get("interval") or "PT1M",
        "value": values,
        "namespace": resource["type"],
        "resourceregion": LOCATION,
    }


def _data(
    metric: Metric, samples: list[Sample], start: datetime, end: datetime, step: timedelta, asked: list[str]
) -> list[dict[str, Any]]:
    buckets: dict[int, list[Sample]] = {}
    for one in samples:
        buckets.setdefault(int((one.at - start.timestamp()) / step.total_seconds()), []).append(one)
    data = []
    for number in range(math.ceil((end - start) / step)):
        value = metric.value(buckets.get(number, []))
        kept = {name: round(value[name], 3) for name in asked if name in value}
        data.append({"timeStamp": _written(start + number * step)} | kept)
    return data


def _timespan(text: str | None) -> tuple[datetime, datetime]:
    """The last hour, or what is asked for, from a whole minute on."""
    if not text:
        # (this minute too: who asks right after a request wants to see it)
        end = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        return end - timedelta(hours=1), end
    first, _, last = text.partition("/")
    try:
        start, end = (datetime.fromisoformat(part.replace(" ", "+")) for part in (first, last))
    except ValueError as error:
        raise WireError(400, "BadRequest", f"timespan {text} is no time, a slash and another time.") from error
    start, end = (at if at.tzinfo else at.replace(tzinfo=UTC) for at in (start, end))
    if not timedelta(0) < end - start <= timedelta(days=31):
        raise WireError(400, "BadRequest", f"timespan {text} must end after it begins, and last 31 days at most.")
    return start.replace(second=0, microsecond=0), end


def _filtered(text: str | None) -> str | None:
    """The deployment that a filter names."""
    if not text:
        return None
    name, _, value = text.partition(" eq ")
    if name.strip().lower() != "deployment" or not value.strip():
        raise WireError(400, "BadRequest", f"$filter {text}: the rehearsal knows deployment eq '...' only.")
    return value.strip().strip("'")


def _written(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
