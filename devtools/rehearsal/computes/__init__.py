"""Compute clusters: made, resized and deleted as long-running operations; their nodes are what jobs keep busy."""
