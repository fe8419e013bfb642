"""An Azure ML command job, read from its YAML file and resolved to the one shell command that runs it here.

The same file goes to Azure as it is; this module understands the part of the commandJob schema that the kit uses and
says so where a file goes beyond it, so that no job does one thing here and another there.

    python -c 'import pathlib, devtools.job as job; print(job.Job.read(pathlib.Path("training/job.yaml")))'
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools.errors import BadInput, nearest

Literal = str | int | float | bool

PLACEHOLDER = re.compile(r"\$\{\{(.*?)\}\}")
#: Asset types whose value is a path, and whether that path is a folder (None: either).
ASSET_TYPES = {"uri_file": False, "uri_folder": True, "mlflow_model": True, "custom_model": None, "mltable": True}


@dataclass(frozen=True)
class Asset:
    """An input or output that is a file or a folder."""

    type: str
    path: Path | None
    """Where an input lies, absolute; None for an output, and for an input that each run must name."""


@dataclass(frozen=True)
class Resolved:
    """A job with every value filled in: what a backend needs in order to run it."""

    command: str
    """One command line for bash, without placeholders."""
    literals: dict[str, str]
    reads: dict[str, Path]
    writes: dict[str, Path]


@dataclass(frozen=True)
class Job:
    """A commandJob file. Paths are absolute; relative ones in the file count from its own folder."""

    file: Path
    command: str
    code: Path
    image: str
    inputs: dict[str, Literal | Asset]
    outputs: dict[str, Asset]
    environment_variables: dict[str, str]
    experiment_name: str

    @classmethod
    def read(cls, file: Path) -> Job:
        """Read and check a job file; raises BadInput with every finding."""
        import yaml

        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"{file}: cannot be read ({error.strerror}); name an Azure ML commandJob file") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(f"{file}: is not YAML ({' '.join(str(error).split())})") from error
        if not isinstance(content, dict):
            raise BadInput(f"{file}: is not a mapping; an Azure ML commandJob file has `type: command` and `command:`")
        findings: list[str] = []
        job = _parse(file.resolve(), content, findings)
        if findings:
            raise BadInput([f"{file}: {finding}" for finding in findings])
        return job

    def resolve(self, inputs: Mapping[str, Literal | Path], outputs: Mapping[str, Path]) -> Resolved:
        """Fill in the command with the file's inputs, changed by `inputs`, and with a folder for each output.

        Values are quoted for the shell. Raises BadInput with every finding: a name the job does not have, a missing
        file, a value of the wrong type, a quote that cannot be kept.
        """
        findings = [
            f"input {name}: the job has none; {nearest(name, self.inputs)}" for name in inputs.keys() - self.inputs
        ]
        findings += [f"output {name}: has no folder" for name in self.outputs.keys() - outputs]
        findings += [
            f"output {name}: the job has none; {nearest(name, self.outputs)}" for name in outputs.keys() - self.outputs
        ]
        literals: dict[str, str] = {}
        reads: dict[str, Path] = {}
        for name, declared in self.inputs.items():
            value = inputs.get(name, declared)
            if isinstance(declared, Asset):
                path = value.path if isinstance(value, Asset) else value
                finding = _asset_finding(declared, path)
                if finding:
                    findings.append(f"input {name}: {finding}")
                else:
                    reads[name] = Path(path).absolute()
            elif isinstance(value, Path) or not isinstance(value, Literal):
                findings.append(f"input {name}: is a {type(value).__name__}; this input is a plain value, not a file")
            elif "\0" in str(value):
                findings.append(f"input {name}: holds a NUL character, which no command line can carry")
            else:
                literals[name] = _text(value)
        writes = {name: Path(path).absolute() for name, path in outputs.items() if name in self.outputs}
        values = {f"inputs.{name}": value for name, value in literals.items()}
        values |= {f"inputs.{name}": str(path) for name, path in reads.items()}
        values |= {f"outputs.{name}": str(path) for name, path in writes.items()}
        if not findings:
            command = _fill(self.command, values, findings)
        if findings:
            raise BadInput([f"{self.file}: {finding}" for finding in findings])
        return Resolved(command, literals, reads, writes)


def _parse(file: Path, content: dict[str, Any], findings: list[str]) -> Job:
    def text(key: str, default: str = "") -> str:
        value = content.get(key, default)
        if not isinstance(value, str):
            findings.append(f"{key}: is a {type(value).__name__}, must be a text")
            return default
        return value

    def mapping(key: str) -> dict[str, Any]:
        value = content.get(key) or {}
        if not isinstance(value, dict):
            findings.append(f"{key}: is a {type(value).__name__}, must be a mapping")
            return {}
        return value

    if content.get("type") != "command":
        findings.append(f"type: is {content.get('type')!r}, must be command")
    command = text("command")
    if not command.strip():
        findings.append("command: is missing or empty")
    code = (file.parent / text("code", ".")).resolve()
    if not code.is_dir():
        findings.append(f"code: there is no folder {code}")
    environment = content.get("environment")
    image = environment.get("image") if isinstance(environment, dict) else None
    if not isinstance(image, str) or not image:
        findings.append("environment.image: is missing; a local run needs the image's name")
    inputs = {name: _parse_input(file, name, value, findings) for name, value in mapping("inputs").items()}
    outputs = {name: _parse_output(name, value, findings) for name, value in mapping("outputs").items()}
    known = {f"inputs.{name}" for name in inputs} | {f"outputs.{name}" for name in outputs}
    for placeholder in dict.fromkeys(PLACEHOLDER.findall(command)):
        if placeholder.strip() not in known:
            findings.append(
                f"command: unknown placeholder ${{{{{placeholder}}}}}; {nearest(placeholder.strip(), known)}"
            )
    if "$[[" in command:
        findings.append("command: $[[...]] (an optional input) is not understood; give the input a default instead")
    return Job(
        file=file,
        command=command.strip(),
        code=code,
        image=image or "",
        inputs=inputs,
        outputs=outputs,
        environment_variables={name: _text(value) for name, value in mapping("environment_variables").items()},
        experiment_name=text("experiment_name", "Default"),
    )


def _parse_input(file: Path, name: str, value: Any, findings: list[str]) -> Literal | Asset:
    if isinstance(value, Literal):
        return value
    if not isinstance(value, dict):
        findings.append(
            f"inputs.{name}: is a {type(value).__name__}, must be a text, a number, true/false or a mapping"
        )
        return ""
    asset = _parse_output(name, value, findings, section="inputs")
    path = value.get("path")
    if path is None:
        return asset
    if not isinstance(path, str):
        findings.append(f"inputs.{name}.path: is a {type(path).__name__}, must be a text")
        return asset
    if "://" in path or path.startswith("azureml:"):
        findings.append(f"inputs.{name}.path: {path} lies elsewhere; a local run needs a local path")
        return asset
    return Asset(asset.type, (file.parent / path).resolve())


def _parse_output(name: str, value: Any, findings: list[str], section: str = "outputs") -> Asset:
    kind = value.get("type", "uri_folder") if isinstance(value, dict) else value
    if value is None:
        kind = "uri_folder"
    if kind not in ASSET_TYPES:
        findings.append(f"{section}.{name}.type: {kind!r} is not supported; {nearest(str(kind), ASSET_TYPES)}")
        kind = "uri_folder"
    return Asset(kind, None)


def _asset_finding(declared: Asset, path: Literal | Path | None) -> str | None:
    if path is None:
        return "names no path"
    if not isinstance(path, str | Path):
        return f"is a {type(path).__name__}, must be a path ({declared.type})"
    path = Path(path)
    if not path.exists():
        return f"there is no {path}"
    is_folder = ASSET_TYPES[declared.type]
    if is_folder is not None and path.is_dir() != is_folder:
        return f"{path} is a {'folder' if path.is_dir() else 'file'}, must be a {'folder' if is_folder else 'file'}"
    return None


def _text(value: Literal) -> str:
    # YAML's booleans, as the job file spells them: Azure hands "true" to the command, not Python's "True"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fill(command: str, values: Mapping[str, str], findings: list[str]) -> str:
    """Put the values into the command; how each is quoted depends on the quotes that its placeholder stands in."""
    filled: list[str] = []
    quote = ""
    end = 0
    for match in PLACEHOLDER.finditer(command):
        between = command[end : match.start()]
        quote = _quote_after(between, quote)
        filled.append(between)
        name = match[1].strip()
        value = values[name]
        if quote == "'" and "'" in value:
            findings.append(
                f"{name}: holds a single quote, and the command has this value in single quotes; write it without"
            )
        elif quote == "'":
            filled.append(value)
        elif quote == '"':
            filled.append(re.sub(r'([\\$`"])', r"\\\1", value))
        else:
            filled.append(shlex.quote(value))
        end = match.end()
    return "".join(filled) + command[end:]


def _quote_after(text: str, quote: str) -> str:
    """The shell quote (', " or none) that is open after `text`, when `quote` was open before it."""
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
    return quote
