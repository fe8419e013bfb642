"""The run history: how a job stands, where its log is, its artifacts: the workspace's own service."""
