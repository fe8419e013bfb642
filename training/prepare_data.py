"""Turn a chat dataset into checked train and test files, or check files without writing anything.

python training/prepare_data.py prepare sample --out data
python training/prepare_data.py check data
"""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from errors import BadInput, exit_code

if TYPE_CHECKING:
    from dataset import Checker
    from split import OutputFolder
    from summary import Summary

EXAMPLES = """\
examples:
  prepare_data.py prepare                                  the sample that comes with the kit, into data/
  prepare_data.py prepare ultrachat                        1 % of HuggingFaceH4/ultrachat_200k, split 80/20
  prepare_data.py prepare owner/name --config C --split 'train[:500]'
  prepare_data.py prepare chats.jsonl --on-bad drop --out data/chats
  prepare_data.py prepare faq.csv --columns question=Asked,answer=Told
  prepare_data.py prepare train.parquet --test-file test.parquet
  prepare_data.py check data
  prepare_data.py check chats.jsonl --max-tokens 4096 --tokenizer microsoft/Phi-3.5-mini-instruct

exit codes: 0 all good, 2 bad input (one line a finding), 130 Ctrl-C
"""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="prepare_data.py",
        description="Chat datasets in, checked train_data.jsonl and test_data.jsonl out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="prepare|check")
    raw = argparse.RawDescriptionHelpFormatter
    prepare = verbs.add_parser(
        "prepare", help="check a dataset, split it, write it", epilog=EXAMPLES, formatter_class=raw
    )
    prepare.add_argument(
        "source",
        nargs="*",
        default=["sample"],
        help="sample (default), ultrachat, owner/name on the hub, files or folders",
    )
    prepare.add_argument("--out", type=Path, default=Path("data"), help="folder for the files (default: data)")
    prepare.add_argument("--config", help="the hub dataset's configuration")
    prepare.add_argument("--split", help="the hub dataset's split, or a slice of it: train_sft[:1%%]")
    prepare.add_argument("--test-file", help="take this file as the test part instead of splitting")
    prepare.add_argument("--test-size", type=float, default=0.2, help="share of the test part (default: 0.2)")
    prepare.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    prepare.add_argument(
        "--on-bad",
        choices=("fail", "drop"),
        default="fail",
        help="bad rows: write nothing (default), or leave them out",
    )
    check = verbs.add_parser("check", help="the same checks, nothing written", epilog=EXAMPLES, formatter_class=raw)
    check.add_argument("source", nargs="+", metavar="PATH", help="files, folders, or sample")
    for verb in (prepare, check):
        verb.add_argument("--columns", help="columns of a table: question=NAME,answer=NAME[,system=NAME]")
        verb.add_argument(
            "--max-tokens", type=int, default=2048, help="longest conversation, 0 for no limit (default: 2048)"
        )
        verb.add_argument("--tokenizer", help="count with this tokenizer (hub name or folder) instead of estimating")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `prepare` or `check`; raises BadInput with every finding."""
    options = arguments(argv)
    columns = _checked_options(options)
    from dataset import Checker
    from sources import open_paths, open_source
    from summary import Summary

    # a plain kill should clean up as Ctrl-C does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if options.verb == "check":
        sources, unused = open_paths(options.source)
    else:
        sources, unused = open_source(options.source, options.test_file, options.config, options.split)
    for path in unused:
        print(f"note: {path} is not used: the files beside it have a train/test split", file=sys.stderr)
    count_tokens = None
    if options.tokenizer:
        from token_count import token_counter

        count_tokens = token_counter(options.tokenizer)
    summary = Summary()
    checker = Checker(options.max_tokens, count_tokens, columns)
    if options.verb == "prepare":
        return _prepare(options, sources, checker, summary)
    _read(sources, checker, summary, None)
    for line in summary.text(checker):
        print(line)
    if findings := checker.findings.lines():
        raise BadInput(findings)
    return 0


def _checked_options(options: argparse.Namespace) -> dict[str, str] | None:
    """The columns by their part; raises BadInput with everything that is wrong with the options' values."""
    findings = []
    columns: dict[str, str] = {}
    if options.columns:
        for item in options.columns.split(","):
            part, equals, name = item.partition("=")
            if not (equals and name) or part.strip() not in ("question", "answer", "system"):
                findings.append(f"--columns: {item!r} is not question=NAME, answer=NAME or system=NAME; correct it")
            columns[part.strip()] = name
        if not findings and not {"question", "answer"} <= columns.keys():
            findings.append("--columns: names no question or no answer; write question=NAME,answer=NAME")
    if options.max_tokens < 0:
        findings.append(f"--max-tokens: {options.max_tokens} is negative; give a limit, or 0 for none")
    if options.verb == "prepare" and not 0 < options.test_size < 1:
        findings.append(f"--test-size: {options.test_size} is not between 0 and 1; 0.2 puts a fifth into the test part")
    if findings:
        raise BadInput(findings)
    return columns or None


def _prepare(options: argparse.Namespace, sources: Sequence, checker: Checker, summary: Summary) -> int:
    """Check, split and write; the files appear only when all of it went well."""
    from split import TEST, TRAIN, OutputFolder, choose_test

    try:
        with OutputFolder(options.out, sum(source.size for source in sources)) as output:
            flags = _read(sources, checker, summary, output)
            findings = checker.findings
            if findings.files or (findings.row_count and options.on_bad == "fail"):
                if findings.row_count and not findings.files:
                    print(f"{findings.row_count:,} bad rows; --on-bad drop leaves them out", file=sys.stderr)
                raise BadInput(findings.lines())
            for line in findings.lines():
                print(f"dropped: {line}", file=sys.stderr)
            split = bool(sources[0].split)
            if not split:
                flags = choose_test(summary.kept, options.test_size, options.seed)
            tests = sum(flags)
            if not tests or tests == len(flags):
                raise BadInput(
                    f"no good conversation is left for the {'test' if not tests else 'train'} part; add some"
                )
            digests = output.write(flags)
            counts = {TRAIN: len(flags) - tests, TEST: tests}
            output.publish(
                {
                    "sources": [source.name for source in sources],
                    "split": "of the source" if split else {"test_size": options.test_size, "seed": options.seed},
                    "files": {name: {"conversations": counts[name], "sha256": digests[name]} for name in counts},
                    **summary.as_json(checker),
                    "dropped_rows": findings.rows,
                }
            )
    except OSError as error:
        fix = "free some space" if error.errno == errno.ENOSPC else "choose another folder"
        raise BadInput(f"--out {options.out}: cannot be written ({error.strerror}); {fix}") from None
    for line in summary.text(checker):
        print(line)
    for name, count in counts.items():
        print(f"{options.out / name}  {count:,} conversations  sha256 {digests[name][:12]}")
    return 0


def _read(sources: Sequence, checker: Checker, summary: Summary, output: OutputFolder | None) -> bytearray:
    """Read all sources through the checker into the summary and, if given, the output; a flag a row: 1 for test."""
    from data_progress import ReadingProgress

    flags = bytearray()
    with ReadingProgress("checking", sources) as progress:
        for source in sources:
            flag = source.split == "test"
            for conversation in progress.follow(checker.conversations(source)):
                summary.add(conversation)
                if output:
                    output.add(conversation.line)
                    flags.append(flag)
    return flags


if __name__ == "__main__":
    sys.exit(exit_code(main))
