"""What a job finds around it: Azure ML's variables, MLflow's, and the way to the emulator's own services.

environment = variables(rehearsal, "job-1", document["properties"])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.rehearsal import API_HOST, GROUP, LOCATION, SUBSCRIPTION, WORKSPACE, WORKSPACE_ID, session, workspace_id
from devtools.rehearsal.identity import tokens
from devtools.rehearsal.runner import Mount
from devtools.rehearsal.tracking import runs

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: Where a job finds the authority that the emulator's certificate is of.
TRUST = "/mnt/azureml/ca.pem"
#: Seconds that a job's token is valid: longer than any job here.
LIFE = 7 * 24 * 3600


def trust(home: Path) -> Mount:
    """The authority's file, as a job sees it."""
    return Mount(home / "ca.pem", TRUST, read_only=True)


def variables(rehearsal: Rehearsal, name: str, properties: dict[str, Any]) -> dict[str, str]:
    """The environment of a job; it holds its token, which is nobody else's."""
    token = tokens.issue(rehearsal.store, tokens.ML, seconds=LIFE)
    experiment = properties.get("experimentName") or "Default"
    ours = str(rehearsal.home / "ca.pem")
    # (who may start jobs, and with which secret, is nothing for the job)
    way = {
        key: TRUST if value == ours else value
        for key, value in session.environment(rehearsal.home).items()
        if key.upper().endswith(("_PROXY", "_BUNDLE", "_FILE", "_CERTS"))
    }
    return (
        way
        | _distribution(properties)
        | {
            "AZUREML_CURRENT_CLOUD": "AzureCloud",
            "AZUREML_RUN_ID": name,
            "AZUREML_RUN_TOKEN": token,
            "AZUREML_ROOT_RUN_ID": name,
            "AZUREML_ARM_SUBSCRIPTION": SUBSCRIPTION,
            "AZUREML_ARM_RESOURCEGROUP": GROUP,
            "AZUREML_ARM_WORKSPACE_NAME": WORKSPACE,
            "AZUREML_ARM_PROJECT_NAME": experiment,
            "AZUREML_WORKSPACE_ID": WORKSPACE_ID,
            "AZUREML_WORKSPACE_SCOPE": workspace_id(),
            "AZUREML_SERVICE_ENDPOINT": f"https://{API_HOST}",
            "AZUREML_LOCATION": LOCATION,
            "MLFLOW_TRACKING_URI": f"azureml://{API_HOST}/mlflow/v1.0{workspace_id()}",
            "MLFLOW_TRACKING_TOKEN": token,
            "MLFLOW_RUN_ID": name,
            "MLFLOW_EXPERIMENT_NAME": experiment,
            "MLFLOW_EXPERIMENT_ID": runs.begin(rehearsal, name, experiment),
        }
    )


def _distribution(properties: dict[str, Any]) -> dict[str, str]:
    """What PyTorch's launchers expect, of a job that is told to be distributed: one process on one node."""
    if str((properties.get("distribution") or {}).get("distributionType")).lower() != "pytorch":
        return {}
    one = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "6105", "WORLD_SIZE": "1"}
    return one | dict.fromkeys(("RANK", "LOCAL_RANK", "NODE_RANK"), "0")
