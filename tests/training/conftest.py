"""What tests of the training folder share: a tokenizer, small models, and one whole run of fine_tune.py."""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.training.program import Program, sample_rows
from tests.training.tracking_server import tracking_server


@pytest.fixture(autouse=True, scope="session")
def own_store(tmp_path_factory) -> Iterator[None]:
    """A caller's tracking server or Azure run is none of the tests' business."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def rows() -> list[dict]:
    """Conversations of the sample, some of several turns, some with a system message."""
    return sample_rows("train.jsonl", 60)


@pytest.fixture(scope="session")
def tiny_config():
    """TRL's model settings for the embedded model."""
    from trl import ModelConfig

    return ModelConfig(model_name_or_path="tiny", attn_implementation="sdpa", dtype="float32")


@pytest.fixture
def tokenizer(tiny_config, rows):
    """The embedded model's tokenizer, trained on `rows`; each test has its own, since tests change its template."""
    from model import load_tokenizer

    return load_tokenizer(tiny_config, (message["content"] for row in rows for message in row["messages"]))


@pytest.fixture(scope="session")
def phi_folder(tmp_path_factory, tiny_config, rows) -> Path:
    """A folder with a Phi-3-architecture model of 0.5 M parameters and its tokenizer, as the hub would hold it."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    from model import load_tokenizer

    tokenizer = load_tokenizer(tiny_config, (message["content"] for row in rows for message in row["messages"]))
    torch.manual_seed(1)
    model = Phi3ForCausalLM(
        Phi3Config(
            vocab_size=-(-len(tokenizer) // 64) * 64,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            original_max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    folder = tmp_path_factory.mktemp("models") / "small-phi"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass
class FinishedRun:
    """A whole run: where it is, what it said, and what it asked of the tracking server."""

    program: Program
    result: CompletedProcess
    uri: str
    paths: list[str] = field(repr=False)
    name: str = "whole"

    @property
    def folder(self) -> Path:
        return self.program.runs / self.name

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def metrics(self) -> dict:
        return json.loads((self.folder / "metrics.json").read_text())


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Iterator[FinishedRun]:
    """One short run of the program against a real tracking server that has no logged models."""
    folder = tmp_path_factory.mktemp("finished")
    with tracking_server(folder / "server") as (uri, paths):
        program = Program(folder)
        result = program.run("whole", environment={"MLFLOW_TRACKING_URI": uri})
        assert result.returncode == 0, result.stderr
        yield FinishedRun(program, result, uri, paths)


@pytest.fixture
def refused(monkeypatch, capfd) -> Callable[..., list[str]]:
    """Call fine_tune's main in this process with a command line that it must refuse; the findings."""
    from errors import BAD_INPUT, exit_code
    from fine_tune import main

    before = signal.getsignal(signal.SIGTERM)

    def call(arguments: list[str]) -> list[str]:
        monkeypatch.setattr("sys.argv", ["fine_tune.py", *arguments])
        code = exit_code(main)
        err = capfd.readouterr().err
        assert code == BAD_INPUT, err
        assert all(line.startswith("error: ") for line in err.splitlines()), err
        return [line.removeprefix("error: ") for line in err.splitlines()]

    yield call
    signal.signal(signal.SIGTERM, before)
