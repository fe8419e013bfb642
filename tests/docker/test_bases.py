"""docker/bases.yaml is the one list of bases: the defaults elsewhere agree with it; no engine needed.

pytest tests/docker/test_bases.py
"""

import re
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parents[2]
BASES: list[dict[str, Any]] = yaml.safe_load((REPO / "docker" / "bases.yaml").read_text())["bases"]


def default(kind: str) -> str:
    """The one image marked as the default for `cpu` or `gpu`."""
    (image,) = [base["image"] for base in BASES if base.get("default") == kind]
    return image


def test_entries_are_whole() -> None:
    for base in BASES:
        assert {"image", "status", "for", "python", "cuda", "source"} <= base.keys(), base["image"]
        assert base["status"] in {"tutorial", "supported", "stand-in"}, base["image"]
        assert base["for"] in {"cpu", "gpu"}, base["image"]
        assert base.get("default", base["for"]) == base["for"], base["image"]
        # quoted in the file: YAML would read 3.10 as 3.1
        assert isinstance(base["python"], str) and isinstance(base["cuda"], str), base["image"]
    images = [base["image"] for base in BASES]
    assert len(images) == len(set(images))


def test_tutorials_own_tags_are_listed() -> None:
    tutorial = {base["for"]: base["image"] for base in BASES if base["status"] == "tutorial"}
    assert tutorial == {
        "cpu": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest",
        "gpu": "mcr.microsoft.com/azureml/curated/acft-hf-nlp-gpu:59",
    }


def test_defaults_are_supported_and_pinned() -> None:
    for kind in ("cpu", "gpu"):
        (base,) = [base for base in BASES if base.get("default") == kind]
        assert base["status"] == "supported"
        assert not base["image"].endswith(":latest")


def test_dockerfile_takes_the_cpu_default() -> None:
    dockerfile = (REPO / "docker" / "runtime.Dockerfile").read_text()
    assert re.findall(r"^ARG BASE_IMAGE=(\S+)$", dockerfile, re.MULTILINE) == [default("cpu")]


def test_compose_takes_both_defaults() -> None:
    services = yaml.safe_load((REPO / "compose.yaml").read_text())["services"]
    assert services["runtime"]["build"]["args"]["BASE_IMAGE"] == f"${{BASE_IMAGE:-{default('cpu')}}}"
    assert services["runtime-gpu"]["build"]["args"]["BASE_IMAGE"] == f"${{BASE_IMAGE_GPU:-{default('gpu')}}}"


def test_stand_in_is_the_script_s_tag() -> None:
    (stand_in,) = [base["image"] for base in BASES if base["status"] == "stand-in"]
    assert f'TAG="{stand_in}"' in (REPO / "docker" / "stand_in_base.sh").read_text()
