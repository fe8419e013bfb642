"""Ask the held-out questions of the tuned model, and of the base model where there is one, and compare the answers.

python -m flows.evaluate --data data/test_data.jsonl --out evaluation

Two models are compared where PHIKIT_BASE_ENDPOINT_URI is set. Writes report.html, metrics.json and answers.jsonl into
the folder OUT, and logs the means to MLFLOW_TRACKING_URI where that is an http address. Exit codes: 0 all lines
answered, 1 some failed (they are named) or a server failed, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from flows.endpoint import Endpoint, EndpointError
from flows.evaluate.compare import Comparison, compare
from flows.evaluate.lines import BadData, read
from flows.evaluate.report import page
from flows.evaluate.tracking import TrackingError, log

OK, FAILED, BAD_INPUT = 0, 1, 2
#: What is written; the last one is written by nothing else.
REPORT = ("report.html", "metrics.json", "answers.jsonl")
#: Failed lines that are named one by one.
SHOWN = 20


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Evaluate what the command line asks for and return the exit code."""
    asked = _parser().parse_args(arguments)
    models = ["base", "tuned"] if environment.get("PHIKIT_BASE_ENDPOINT_URI", "").strip() else ["tuned"]
    try:
        _check(asked)
        lines = read(asked.data, asked.limit)
        for model in models:
            Endpoint.configured(model, environment)
    except (BadData, EndpointError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    if len(models) == 1:
        where = "PHIKIT_BASE_ENDPOINT_URI=http://127.0.0.1:5002/score"
        print(f"one model, nothing to compare with; with the base model: make up COMPARE=1, {where}", file=sys.stderr)
    # promptflow is imported here, after all that can be wrong without it
    from flows.evaluate.batch import run

    results, failures = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            print(f"{model}: {len(lines)} questions", file=sys.stderr)
            answers, measures, failed = run(lines, Path(folder), model, asked.max_tokens)
            results[model] = answers, measures
            failures += [f"{model}, {asked.data}, line {lines[place]['line']}: {why}" for place, why in failed.items()]
    comparison = compare(lines, results)
    code = OK
    if comparison.rows:
        try:
            _keep(comparison, asked.out, str(asked.data))
            _print(comparison, asked.out)
            if environment.get("MLFLOW_TRACKING_URI", "").startswith("http"):
                metrics = {
                    f"{model}.{name}": value
                    for model, means in comparison.means.items()
                    for name, value in means.items()
                }
                metrics |= {"lines": float(len(comparison.rows)), "lines_failed": float(len(failures))}
                print(f"MLflow run {log(metrics, {'data': asked.data.name}, environment)}")
        except (OSError, TrackingError) as error:
            print(error, file=sys.stderr)
            code = FAILED
    for failure in failures[:SHOWN]:
        print(failure, file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(lines) * len(models)} lines failed", file=sys.stderr)
    return FAILED if failures else code


def _check(asked: argparse.Namespace) -> None:
    """Raise BadData for numbers that ask nothing, and for a folder with somebody else's files of the same names."""
    for option in ("limit", "max_tokens"):
        if (number := getattr(asked, option)) is not None and number < 1:
            raise BadData(f"--{option.replace('_', '-')} {number}: must be 1 or more")
    folder = asked.out
    if folder.exists() and not folder.is_dir():
        raise BadData(f"--out {folder}: is a file; name a folder")
    foreign = [name for name in REPORT[:-1] if (folder / name).exists()]
    if foreign and not (folder / REPORT[-1]).exists():
        raise BadData(f"--out {folder}: holds {' and '.join(foreign)} of something else; name another folder")


def _keep(comparison: Comparison, folder: Path, data: str) -> None:
    """Write all three files beside their places, then rename them: the one that tells them from others' first."""
    rows = (json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in comparison.rows)
    texts = page(comparison, data), json.dumps(comparison.means, indent=2) + "\n", "".join(rows)
    folder.mkdir(parents=True, exist_ok=True)
    drafts = [folder / f".{name}.draft" for name in REPORT]
    for draft, text in zip(drafts, texts, strict=True):
        draft.write_text(text, encoding="utf-8")
    for draft, name in reversed(list(zip(drafts, REPORT, strict=True))):
        draft.replace(folder / name)


def _print(comparison: Comparison, folder: Path) -> None:
    print(" " * 14 + "".join(f"{model:>10}" for model in comparison.means))
    for name in next(iter(comparison.means.values())):
        print(f"{name.replace('_', ' '):14}" + "".join(f"{means[name]:10.4g}" for means in comparison.means.values()))
    if len(comparison.means) > 1:
        better = sum(row.flip == "better" for row in comparison.rows)
        print(f"{'flipped':14}{better} better, {len(comparison.flipped) - better} worse")
        for row in comparison.flipped[:SHOWN]:
            print(f"  line {row.line}: {row.flip}")
    print(f"report: {folder / REPORT[0]}")


def _parser() -> argparse.ArgumentParser:
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m flows.evaluate",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, default=Path("data/test_data.jsonl"), help="JSONL (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation"), help="folder (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="ask this many questions at most")
    parser.add_argument("--max-tokens", type=int, default=128, help="of an answer (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
