"""Machine and account facts, from the environment and from .env: the one module of devtools/ that reads either.

Each field of `Settings` is one variable, and .env.example documents each (tests/devtools/test_settings.py holds the two
together). A variable that is set in the environment wins over .env; an empty one counts as unset.

    python -c 'from devtools.settings import Settings; print(Settings.load())'      # secrets are left out
"""

from __future__ import annotations

import os
import sys
from dataclasses import Field, dataclass, field, fields
from pathlib import Path

from devtools.errors import nearest

#: The checkout: everything the kit reads and writes lies below.
ROOT = Path(__file__).resolve().parents[1]
#: Names of the scoring server's own settings begin so; serving/settings.py reads and checks them.
SERVING = "PHIKIT_SERVE_"


def variable(name: str, *, secret: bool = False) -> str | None:
    """Declare a field that is read from the environment variable `name`; a secret is left out of the repr."""
    return field(default=None, repr=not secret, metadata={"variable": name, "secret": secret})


@dataclass(frozen=True)
class Settings:
    """What the kit was told about this machine and its accounts; None where nothing was said."""

    base_image: str | None = variable("BASE_IMAGE")
    """Image that docker/runtime.Dockerfile builds on; unset: the pinned default in compose.yaml."""
    base_image_gpu: str | None = variable("BASE_IMAGE_GPU")
    """The same for the GPU image."""
    python_image: str | None = variable("PYTHON_IMAGE")
    """Image with Python that the flow's and the page's images build on; unset: the pinned default in compose.yaml."""
    build_network: str | None = variable("PHIKIT_BUILD_NETWORK")
    """Network of image builds; host: the build uses this machine's own network, for engines without a bridge."""
    ca_file: str | None = variable("PHIKIT_CA_FILE")
    """PEM file of a private certificate authority that image builds, and downloads inside containers, are to trust."""
    wheels: str | None = variable("PHIKIT_WHEELS")
    """Folder of wheels that image builds take packages from, before any index."""
    mlflow_tracking_uri: str | None = variable("MLFLOW_TRACKING_URI")
    """Where runs are tracked; unset: a SQLite store in runs/."""
    mlflow_tracking_username: str | None = variable("MLFLOW_TRACKING_USERNAME")
    """User name for a tracking server that asks for one."""
    mlflow_tracking_password: str | None = variable("MLFLOW_TRACKING_PASSWORD", secret=True)
    """Password that goes with the user name."""
    mlflow_tracking_token: str | None = variable("MLFLOW_TRACKING_TOKEN", secret=True)
    """Bearer token for a tracking server, instead of user name and password."""
    serve_model: str | None = variable("PHIKIT_SERVE_MODEL")
    """MLflow model directory that `phikit serve` serves; unset: runs/latest/model."""
    serve_host: str | None = variable("PHIKIT_SERVE_HOST")
    """Address that the scoring server listens on; any other than loopback asks for a key."""
    serve_port: str | None = variable("PHIKIT_SERVE_PORT")
    """Its port."""
    serve_name: str | None = variable("PHIKIT_SERVE_NAME")
    """Name of the model in its answers."""
    serve_key: str | None = variable("PHIKIT_SERVE_KEY", secret=True)
    """Bearer keys that it asks for, comma-separated."""
    serve_anonymous: str | None = variable("PHIKIT_SERVE_ANONYMOUS")
    """1: it answers without a key on any address."""
    serve_engine: str | None = variable("PHIKIT_SERVE_ENGINE")
    """auto, transformers or onnx."""
    serve_precision: str | None = variable("PHIKIT_SERVE_PRECISION")
    """auto, or the precision of an export or of the weights."""
    serve_slots: str | None = variable("PHIKIT_SERVE_SLOTS")
    """Sequences that it generates together."""
    serve_context: str | None = variable("PHIKIT_SERVE_CONTEXT")
    """Tokens of a prompt and its answer together."""
    serve_kv_memory: str | None = variable("PHIKIT_SERVE_KV_MEMORY")
    """GiB that its KV cache takes at most."""
    serve_threads: str | None = variable("PHIKIT_SERVE_THREADS")
    """CPU threads of its engine; 0: all."""
    serve_queue: str | None = variable("PHIKIT_SERVE_QUEUE")
    """Prompts that wait for a slot; beyond them it answers 429."""
    serve_deadline: str | None = variable("PHIKIT_SERVE_DEADLINE")
    """Seconds from a request's arrival to the end of its answer."""
    serve_patience: str | None = variable("PHIKIT_SERVE_PATIENCE")
    """Seconds that a client may take between two pieces of its request."""
    serve_drain: str | None = variable("PHIKIT_SERVE_DRAIN")
    """Seconds that answers in progress get to end when it is stopped."""
    serve_max_body: str | None = variable("PHIKIT_SERVE_MAX_BODY")
    """Bytes of a request's body."""
    serve_max_items: str | None = variable("PHIKIT_SERVE_MAX_ITEMS")
    """Prompts of one request."""
    serve_max_tokens: str | None = variable("PHIKIT_SERVE_MAX_TOKENS")
    """Tokens that it generates when a request does not say."""
    endpoint_uri: str | None = variable("PHIKIT_ENDPOINT_URI")
    """Scoring URI that the flow and the agent ask; flows/endpoint.py reads this and the following."""
    endpoint_key: str | None = variable("PHIKIT_ENDPOINT_KEY", secret=True)
    """Its key."""
    base_endpoint_uri: str | None = variable("PHIKIT_BASE_ENDPOINT_URI")
    """The untuned model's scoring URI, to compare with."""
    base_endpoint_key: str | None = variable("PHIKIT_BASE_ENDPOINT_KEY", secret=True)
    """Its key."""
    endpoint_timeout: str | None = variable("PHIKIT_ENDPOINT_TIMEOUT")
    """Seconds until the next piece of an answer."""
    endpoint_retries: str | None = variable("PHIKIT_ENDPOINT_RETRIES")
    """Further tries while an endpoint is overloaded, loading or out of reach."""
    history: str | None = variable("PHIKIT_HISTORY")
    """Where conversations are kept: sqlite:PATH or cosmos; flows/history/__init__.py reads this and the following."""
    cosmos_uri: str | None = variable("PHIKIT_COSMOS_URI")
    """The account of Azure Cosmos DB."""
    cosmos_key: str | None = variable("PHIKIT_COSMOS_KEY", secret=True)
    """Its key; unset: as whom Azure's default credential finds."""
    cosmos_database: str | None = variable("PHIKIT_COSMOS_DATABASE")
    """Its database."""
    flow_uri: str | None = variable("PHIKIT_FLOW_URI")
    """The flow that the chat page asks; flows/page/settings.py checks this and the following."""
    chat_host: str | None = variable("PHIKIT_CHAT_HOST")
    """Address that the page listens on; any other than loopback asks for logins."""
    chat_port: str | None = variable("PHIKIT_CHAT_PORT")
    """Its port."""
    chat_logins: str | None = variable("PHIKIT_CHAT_LOGINS", secret=True)
    """name:password pairs, comma-separated."""
    chat_anonymous: str | None = variable("PHIKIT_CHAT_ANONYMOUS")
    """1: no login on any address."""
    chat_names: str | None = variable("PHIKIT_CHAT_NAMES")
    """Names under which it may be reached without a login."""
    chat_run: str | None = variable("PHIKIT_CHAT_RUN")
    """Run folder whose metrics and report it shows."""
    chat_compare: str | None = variable("PHIKIT_CHAT_COMPARE")
    """1: it offers to compare with the base model."""
    compose_user: str | None = variable("PHIKIT_COMPOSE_USER")
    """User and group, as numbers, that compose.yaml's services run as."""
    mlflow_port: str | None = variable("PHIKIT_MLFLOW_PORT")
    """Port on which compose.yaml publishes MLflow's page; likewise the following."""
    flow_port: str | None = variable("PHIKIT_FLOW_PORT")
    """The flow's."""
    base_port: str | None = variable("PHIKIT_BASE_PORT")
    """That of the scoring server with the untuned model."""
    azure_chat_port: str | None = variable("PHIKIT_AZURE_CHAT_PORT")
    """That of the chat page in front of the managed endpoint."""
    azure_subscription: str | None = variable("AZURE_SUBSCRIPTION_ID")
    """The Azure subscription; with the two following, which workspace. devtools/azure reads this and all of them."""
    azure_group: str | None = variable("AZURE_RESOURCE_GROUP")
    """The workspace's resource group."""
    azure_workspace: str | None = variable("AZURE_WORKSPACE")
    """The Azure Machine Learning workspace."""
    azure_tenant: str | None = variable("AZURE_TENANT_ID")
    """Tenant to sign in to; unset: the account's own."""
    azure_client: str | None = variable("AZURE_CLIENT_ID")
    """Application or managed identity to sign in as."""
    azure_client_secret: str | None = variable("AZURE_CLIENT_SECRET", secret=True)
    """The application's secret."""
    azure_token_file: str | None = variable("AZURE_FEDERATED_TOKEN_FILE")
    """File with the token of a workload identity."""
    azure_sign_in: str | None = variable("PHIKIT_AZURE_SIGN_IN")
    """auto, cli, device, environment, workload or managed."""
    azure_cluster: str | None = variable("PHIKIT_AZURE_CLUSTER")
    """Name of the cluster; unset: one for each profile."""
    azure_size: str | None = variable("PHIKIT_AZURE_SIZE")
    """VM size of its nodes."""
    azure_nodes: str | None = variable("PHIKIT_AZURE_NODES")
    """Nodes that it has at most."""
    azure_priority: str | None = variable("PHIKIT_AZURE_PRIORITY")
    """dedicated or low."""
    azure_idle: str | None = variable("PHIKIT_AZURE_IDLE")
    """Seconds after which an idle node goes."""
    azure_hours: str | None = variable("PHIKIT_AZURE_HOURS")
    """Hours that a job may take."""
    azure_image: str | None = variable("PHIKIT_AZURE_IMAGE")
    """auto, push or build."""
    azure_identity: str | None = variable("PHIKIT_AZURE_IDENTITY")
    """Resource id of the user-assigned identity of the endpoint."""
    azure_endpoint: str | None = variable("PHIKIT_AZURE_ENDPOINT")
    """Name of the endpoint."""
    azure_instance: str | None = variable("PHIKIT_AZURE_INSTANCE")
    """VM size of its deployments."""
    azure_model: str | None = variable("PHIKIT_AZURE_MODEL")
    """Name that models are registered under."""
    rehearsal_home: str | None = variable("PHIKIT_REHEARSAL_HOME")
    """Folder of the rehearsal's state; unset: .rehearsal."""
    rehearsal_runner: str | None = variable("PHIKIT_REHEARSAL_RUNNER")
    """What its jobs and deployments run in: auto, docker or process."""
    hf_token: str | None = variable("HF_TOKEN", secret=True)
    """Access token of the Hugging Face hub, for gated models and datasets."""
    hf_home: str | None = variable("HF_HOME")
    """Where hub downloads are kept; unset: ~/.cache/huggingface."""
    hf_endpoint: str | None = variable("HF_ENDPOINT")
    """Address of a mirror of the hub."""
    hf_hub_offline: str | None = variable("HF_HUB_OFFLINE")
    """1: use what is in HF_HOME and ask no hub."""
    docker_host: str | None = variable("DOCKER_HOST")
    """Address of the Docker engine; unset: the one of the current Docker context."""
    http_proxy: str | None = variable("HTTP_PROXY", secret=True)
    """Proxy for plain HTTP; may hold a password."""
    https_proxy: str | None = variable("HTTPS_PROXY", secret=True)
    """Proxy for HTTPS; may hold a password."""
    no_proxy: str | None = variable("NO_PROXY")
    """Hosts that are reached without a proxy, comma-separated."""

    @classmethod
    def load(cls, root: Path = ROOT) -> Settings:
        """Read .env below `root`, then the environment over it."""
        from dotenv import dotenv_values

        told = {**dotenv_values(root / ".env"), **os.environ}
        return cls(**{f.name: told.get(name) or None for name, f in _fields().items()})

    def environ(self) -> dict[str, str]:
        """The variables that are set, by their names: what a program that the kit starts is handed."""
        return {name: value for name, f in _fields().items() if (value := getattr(self, f.name))}

    def pick(self, *names: str) -> dict[str, str]:
        """Those of the named variables that are set."""
        mine = self.environ()
        return {name: mine[name] for name in names if name in mine}

    def serving(self) -> dict[str, str]:
        """Those of the scoring server that are set."""
        return {name: value for name, value in self.environ().items() if name.startswith(SERVING)}

    def ca_path(self) -> Path | None:
        """The private authority's file; a relative name counts from the checkout, as compose.yaml takes it."""
        return ROOT / Path(self.ca_file).expanduser() if self.ca_file else None

    def hub_cache(self) -> Path:
        """The folder of hub downloads: HF_HOME, or the hub library's own default."""
        return Path(self.hf_home).expanduser().absolute() if self.hf_home else Path.home() / ".cache" / "huggingface"


def _fields() -> dict[str, Field]:
    return {f.metadata["variable"]: f for f in fields(Settings)}


def variables() -> dict[str, bool]:
    """Every variable that the kit reads, and whether it is a secret."""
    return {name: f.metadata["secret"] for name, f in _fields().items()}


def unknown_variables(root: Path = ROOT) -> dict[str, str]:
    """Names in .env that the kit does not read, each with the nearest one that it does: most are typing errors."""
    from dotenv import dotenv_values

    known = variables()
    return {name: nearest(name, known) for name in dotenv_values(root / ".env") if name not in known}


def inherited() -> dict[str, str]:
    """A copy of the whole environment, for a program that runs on this machine as the user would run it."""
    return dict(os.environ)


def has_display() -> bool:
    """Whether a browser could open a window here."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
