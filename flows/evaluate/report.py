"""The comparison as one HTML page that needs no other file: no script, no request.

page(comparison, "data/test_data.jsonl")
"""

from __future__ import annotations

from pathlib import Path

from flows.evaluate.compare import Comparison

TEMPLATE = Path(__file__).with_name("report.html.j2")


def page(comparison: Comparison, data: str) -> str:
    """The report; answers are text there, whatever is in them."""
    import jinja2

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    return template.render(comparison=comparison, data=data)
