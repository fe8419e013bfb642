"""`phikit serve` and `phikit export`: what is done with a run's model.

phikit serve --help
phikit export --help
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from devtools.examples import Examples, backend_option


def model_options(command: Callable) -> Callable:
    """Give a command the two options that name a model."""
    command = click.option("--model", metavar="FOLDER", help="Any MLflow model directory.")(command)
    return click.option("--run", metavar="NAME", help="The model of runs/NAME.  [default: the newest whole run's]")(
        command
    )


@click.command(cls=Examples)
@model_options
@click.option("--host", help="Address to be reached at; any but loopback asks for a key.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="On that address.  [default: 5001]")
@click.option("--engine", type=click.Choice(["auto", "transformers", "onnx"]), help="What generates.  [default: auto]")
@click.option("--precision", help="Of the ONNX export (int4, int8, float32), or of the weights (float32, bfloat16).")
@click.option("--slots", type=click.IntRange(1), help="Answers generated together.  [default: 16]")
@click.option("--gpu", is_flag=True, help="Use the GPU image and this machine's GPUs.")
@backend_option
def serve(backend: str, **options: object) -> None:
    """Answer over HTTP with a run's model until Ctrl-C, as a managed endpoint on Azure does.

    Routes: /score, /invocations, /v1/chat/completions; /health, /ready, /version, /metrics. Other settings, the key
    among them, are PHIKIT_SERVE_* in the environment or .env: .env.example lists them.

    Examples:
      phikit serve
      phikit serve --run first --port 5002 --engine onnx --precision int4
      PHIKIT_SERVE_KEY=long-and-random phikit serve --host 0.0.0.0

    Exit codes: 0 ended by Ctrl-C, 1 failed, 2 bad input.
    """
    from devtools.local import choose
    from devtools.scoring_server import Request, serve
    from devtools.settings import Settings

    settings = Settings.load()
    chosen = choose(settings, backend)
    click.echo(chosen.reason, err=True)
    sys.exit(serve(Request(**options), chosen, settings))


@click.command(cls=Examples)
@model_options
@click.option("--format", "kind", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="What to make.")
@click.option(
    "--precision",
    type=click.Choice(["int4", "int8", "float32"]),
    multiple=True,
    help="Of the weights; repeatable.  [default: int4]",
)
@click.option(
    "--held-out", metavar="FILE", help="Conversations to judge it on.  [default: those that the run was judged on]"
)
@click.option("--force", is_flag=True, help="Publish it whatever it lost, or unjudged.")
@click.option("--max-perplexity-ratio", type=float, help="Against float32.  [default: 1.05]")
@click.option("--min-agreement", type=click.FloatRange(0, 1), help="Share of answers that stay.  [default: 0.9]")
@click.option("--questions", type=click.IntRange(1), help="Conversations judged at most.  [default: 200]")
@click.option("--block-size", type=click.Choice(["16", "32", "64", "128", "256"]), help="Weights that share a scale.")
@backend_option
def export(
    backend: str,
    kind: str,
    max_perplexity_ratio: float | None,
    min_agreement: float | None,
    questions: int | None,
    block_size: str | None,
    **options: object,
) -> None:
    """Export a run's model to ONNX, beside its weights: the scoring server then takes it on a CPU.

    A quantised export is compared with float32 on conversations that the model was not trained on, and refused when it
    has lost too much.

    Examples:
      phikit export
      phikit export --run first --precision int4 --precision float32
      phikit export --model ./my-model --held-out questions.jsonl --min-agreement 0.95

    Exit codes: 0 done, 1 refused or failed, 2 bad input, 130 Ctrl-C.
    """
    from devtools.local import choose
    from devtools.onnx_export import Request, export
    from devtools.settings import Settings

    told = {
        "--max-perplexity-ratio": max_perplexity_ratio,
        "--min-agreement": min_agreement,
        "--questions": questions,
        "--block-size": block_size,
    }
    arguments = tuple(word for name, value in told.items() if value is not None for word in (name, str(value)))
    settings = Settings.load()
    chosen = choose(settings, backend)
    click.echo(chosen.reason, err=True)
    sys.exit(export(Request(arguments=arguments, **options), chosen, settings))
