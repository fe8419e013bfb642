"""Somebody's own way without the SDK: a token of the Azure CLI, and Azure Resource Manager by hand.

python ask_by_rest.py
"""

import json
import os
import subprocess
import time

import requests

BASE = "https://management.azure.com"
VERSION = {"api-version": "2024-10-01"}


def main() -> None:
    said = subprocess.run(
        ["az", "account", "get-access-token", "--resource", BASE, "--output", "json"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {json.loads(said)['accessToken']}"
    workspace = (
        f"{BASE}/subscriptions/{os.environ['AZURE_SUBSCRIPTION_ID']}/resourceGroups/{os.environ['AZURE_RESOURCE_GROUP']}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{os.environ['AZURE_WORKSPACE']}"
    )
    found = session.get(workspace, params=VERSION)
    print(json.dumps({"workspace": found.json()["name"], "status": found.status_code}))

    cluster = {
        "location": found.json()["location"],
        "properties": {
            "computeType": "AmlCompute",
            "properties": {"vmSize": "Standard_DS3_v2", "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1}},
        },
    }
    made = session.put(f"{workspace}/computes/by-hand", params=VERSION, json=cluster)
    made.raise_for_status()
    deadline = time.monotonic() + 60
    while (state := session.get(made.headers["Azure-AsyncOperation"]).json()["status"]) not in ("Succeeded", "Failed"):
        assert time.monotonic() < deadline
        time.sleep(float(made.headers["Retry-After"]))
    print(json.dumps({"cluster": state}))
    session.delete(f"{workspace}/computes/by-hand", params=VERSION | {"underlyingResourceAction": "Delete"})

    lost = session.get(f"{workspace}/computes/nobody", params=VERSION)
    print(json.dumps({"missing": lost.status_code, "code": lost.json()["error"]["code"]}))
    stranger = requests.get(workspace, params=VERSION, headers={"Authorization": "Bearer nobody's"})
    print(json.dumps({"stranger": stranger.status_code, "code": stranger.json()["error"]["code"]}))


if __name__ == "__main__":
    main()
