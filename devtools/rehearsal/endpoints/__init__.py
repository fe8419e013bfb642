"""Managed online endpoints: endpoints, their deployments as real containers with real probes, keys, logs, metrics."""
