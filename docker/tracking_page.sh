#!/usr/bin/env bash
# In the runtime image: MLflow's page over the runs that are there, theirs or the first run's.  tracking_page.sh
#
# Whoever it runs as may only read the store: SQLite opens it as such.
set -euo pipefail

store="sqlite:////tmp/mlflow.db"
artifacts="/tmp/mlartifacts"
for runs in /phikit/runs /phikit/first-run; do
    if [ -f "$runs/mlflow.db" ]; then
        store="sqlite:///file:$runs/mlflow.db?mode=ro&uri=true" artifacts="$runs/mlartifacts"
        break
    fi
done
# (MLflow takes `file:` for the name of a folder, and makes it)
cd /tmp
# the server's own jobs, seven more processes, are for judging traces of live traffic
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec python -m mlflow server --host 0.0.0.0 --port 5000 --workers 1 \
    --backend-store-uri "$store" --artifacts-destination "$artifacts"
