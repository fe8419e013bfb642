"""The server's settings, from the environment alone, and the one module of serving/ that reads it.

    python -c 'from serving.settings import Settings; print(Settings.load())'      # the key is left out

Each field is the variable PHIKIT_SERVE_<NAME>; an empty one counts as unset. Every wrong one is reported at once.
"""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from serving.errors import BadInput

PREFIX = "PHIKIT_SERVE_"
ENGINES = ("auto", "transformers", "onnx")
#: Names that fields have besides their own: Azure ML mounts the registered model at AZUREML_MODEL_DIR.
ALIASES = {"model": "AZUREML_MODEL_DIR"}


@dataclass(frozen=True)
class Settings:
    """What the server was told; defaults are those of a machine of one's own."""

    model: Path = Path("runs/latest/model")
    """MLflow model directory, or a folder up to three levels above it."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than loopback asks for a key, or for `anonymous`."""
    port: int = 5001
    """Port to listen on; 0 takes a free one, which the log names."""
    name: str = "phikit"
    """Name of the model in /v1/models and in answers."""
    key: tuple[str, ...] = field(default=(), repr=False)
    """Bearer keys, comma-separated: two of them while one is being replaced."""
    anonymous: bool = False
    """1: answer without a key on any address; for containers whose port is published to loopback or guarded."""
    engine: str = "auto"
    """auto, transformers or onnx."""
    precision: str = "auto"
    """auto, or one: of the ONNX exports (int4, int8, float32), or to load the safetensors in (float32, bfloat16)."""
    slots: int = 16
    """Sequences generated together."""
    context: int = 4096
    """Tokens of a prompt and its answer together; the model's own limit where that is lower."""
    kv_memory: float = 2.0
    """GiB for the KV cache at most; slots, then context, are cut to fit."""
    threads: int = 0
    """CPU threads of the engine; 0: the cores this process may run on."""
    queue: int = 64
    """Prompts that wait for a slot; beyond them, 429."""
    deadline: float = 120.0
    """Seconds from a request's arrival to the end of its answer."""
    patience: float = 10.0
    """Seconds that a client may take between two pieces of its request, or to take in a piece of its answer."""
    drain: float = 30.0
    """Seconds that answers in progress get to end after SIGTERM."""
    max_body: int = 1_048_576
    """Bytes of a request's body."""
    max_items: int = 32
    """Prompts of one request."""
    max_tokens: int = 128
    """Tokens generated when a request does not say."""

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the environment.

        Raises:
            BadInput: every variable that cannot be used, with what would do.
        """
        told = os.environ if environment is None else environment
        values, findings = {}, []
        for f in fields(cls):
            name = PREFIX + f.name.upper()
            alias = ALIASES.get(f.name)
            text = told.get(name) or (told.get(alias) if alias else None)
            if not text:
                continue
            try:
                values[f.name] = _parse(f.type, text.strip())
            except ValueError as error:
                shown = "" if f.name == "key" else f" {text!r}"
                findings.append(f"{name}{shown}: {error}")
        findings += [
            f"{name}: there is no such setting"
            for name in sorted(told)
            if name.startswith(PREFIX) and name[len(PREFIX) :].lower() not in {f.name for f in fields(cls)}
        ]
        settings = cls(**values)
        findings += settings._findings()
        if findings:
            raise BadInput(findings)
        return settings

    def _findings(self) -> list[str]:
        findings = []
        if self.engine not in ENGINES:
            findings.append(f"{PREFIX}ENGINE {self.engine!r}: choose {', '.join(ENGINES)}")
        if not 0 <= self.port < 65536:
            findings.append(f"{PREFIX}PORT {self.port}: must be 0 to 65535")
        for name in ("slots", "context", "max_body", "max_items", "max_tokens"):
            if getattr(self, name) < 1:
                findings.append(f"{PREFIX}{name.upper()} {getattr(self, name)}: must be at least 1")
        for name in ("queue", "threads", "drain"):
            if getattr(self, name) < 0:
                findings.append(f"{PREFIX}{name.upper()} {getattr(self, name)}: must not be negative")
        for name in ("kv_memory", "deadline", "patience"):
            if getattr(self, name) <= 0:
                findings.append(f"{PREFIX}{name.upper()} {getattr(self, name)}: must be above 0")
        if any(not key.isascii() or not key.isprintable() or len(key) < 8 for key in self.key):
            findings.append(f"{PREFIX}KEY: each key must be 8 or more printable ASCII characters")
        if not self.key and not self.anonymous and not _is_loopback(self.host):
            findings.append(
                f"{PREFIX}HOST {self.host!r}: others could reach the server without a key; set {PREFIX}KEY, or "
                f"{PREFIX}ANONYMOUS=1 where something else guards the port"
            )
        return findings


def variables() -> dict[str, str]:
    """Every variable that the server reads, by the field it sets."""
    return {f.name: PREFIX + f.name.upper() for f in fields(Settings)}


def _parse(kind: str, text: str) -> object:
    """`text` as the type that a field is annotated with."""
    if kind == "bool":
        if text.lower() not in ("0", "1", "true", "false"):
            raise ValueError("must be 0 or 1")
        return text.lower() in ("1", "true")
    if kind == "tuple[str, ...]":
        keys = tuple(key for part in text.split(",") if (key := part.strip()))
        if not keys:
            raise ValueError("holds no key; leave it out, or set one")
        return keys
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise ValueError("must be a whole number") from None
    if kind == "float":
        try:
            number = float(text)
        except ValueError:
            raise ValueError("must be a number") from None
        if not math.isfinite(number):
            raise ValueError("must be a finite number")
        return number
    return Path(text) if kind == "Path" else text


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
