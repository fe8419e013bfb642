"""The comparison as one HTML file that needs no other: no script, no request.

write(comparison, Path("runs/latest/evaluation.html"), "data/test_data.jsonl")
"""

from __future__ import annotations

from pathlib import Path

from flows.evaluate.compare import Comparison

TEMPLATE = Path(__file__).with_name("report.html.j2")


def write(comparison: Comparison, target: Path, data: str) -> None:
    """Write the report, whole or not at all; answers are text there, whatever is in them. Raises OSError."""
    import jinja2

    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    draft.write_text(page.render(comparison=comparison, data=data), encoding="utf-8")
    draft.replace(target)
