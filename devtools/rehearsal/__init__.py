"""The rehearsal: an emulator of the part of Azure that the kit uses, on loopback, for the real SDK, unpatched.

phikit rehearsal up               # starts it, prints its names
phikit rehearsal run -- COMMAND   # any program, signed in to it
phikit rehearsal down

One small folder a resource type: `routes.py` says which calls it answers, the modules beside it do the work.
devtools/rehearsal/README.md lists what is emulated and how it differs from Azure.
"""

#: The one subscription, tenant and user there are. All zeros but the last digits: nobody's.
SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
TENANT = "00000000-0000-0000-0000-000000000002"
CLIENT = "00000000-0000-0000-0000-000000000003"
PRINCIPAL = "00000000-0000-0000-0000-000000000004"
GROUP = "rehearsal"
WORKSPACE = "rehearsal"
WORKSPACE_ID = "00000000-0000-0000-0000-000000000005"
LOCATION = "eastus2"
#: The workspace's storage account and its container, container registry and user-assigned identity.
ACCOUNT = "phikitrehearsal"
CONTAINER = "azureml-blobstore-00000000-0000-0000-0000-000000000005"
REGISTRY = "phikitrehearsal"
IDENTITY = "rehearsal"

#: Hosts that the proxy lets through; every other one is refused.
LOGIN_HOST = "login.microsoftonline.com"
MANAGEMENT_HOST = "management.azure.com"
API_HOST = f"{LOCATION}.api.azureml.ms"
PRICES_HOST = "prices.azure.com"
BLOB_HOST = f"{ACCOUNT}.blob.core.windows.net"
#: A managed endpoint answers on <endpoint>.<this>.
SCORING_SUFFIX = f"{LOCATION}.inference.ml.azure.com"

#: Paths of the control plane: the resource group, and the workspace (with the names of the path's parameters).
GROUP_PATH = "/subscriptions/{subscription}/resourceGroups/{group}"
WORKSPACE_PATH = GROUP_PATH + "/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"


def resource_id(kind: str, name: str, provider: str = "Microsoft.MachineLearningServices") -> str:
    """The id of a resource of the group, such as `resource_id("workspaces", WORKSPACE)`."""
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/{provider}/{kind}/{name}"


def workspace_id(tail: str = "") -> str:
    """The workspace's id, or that of something in it: `workspace_id("computes/cpu")`."""
    return resource_id("workspaces", WORKSPACE) + (f"/{tail}" if tail else "")
