"""The scoring server: an MLflow model directory in, answers over HTTP out."""
