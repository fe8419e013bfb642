"""MLflow's tracking server of the workspace: a real one, under the names that Azure gives to runs and artifacts."""
