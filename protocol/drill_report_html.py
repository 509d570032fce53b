"""A drill report as one HTML page: without scripts that run, and without anything from elsewhere. Pure.

Every value is escaped for text and for attributes. Beside that the page forbids itself whatever would be
fetched or run (Content-Security-Policy), in case a browser and we differ on what is text.
"""

from __future__ import annotations

from html import escape

from protocol.commands.drill import DrillInfo
from protocol.drill_report_text import Statement, drill_facts, head_facts, verdict
from protocol.printable import printable, printable_lines

_STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "th{text-align:left;vertical-align:top;padding-right:1.5em;font-weight:600;white-space:nowrap}"
    "td{overflow-wrap:anywhere}table{border-spacing:0 .2em}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f4f4f4;padding:.6em;margin:.2em 0}"
    ".good{color:#17692b}.bad{color:#a31515}"
)
_HEAD = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'\">\n"
    '<meta name="viewport" content="width=device-width">\n'
)


def html_page(statement: Statement, embedded: str) -> str:
    """All of it; `embedded` is an element that shows nothing."""
    title = f"Drill report of site {_text(statement.site)}, {_text(statement.made)}"
    parts = [_HEAD, f"<title>{title}</title>\n<style>{_STYLE}</style></head><body>\n<h1>{title}</h1>\n"]
    parts.append(_table(head_facts(statement)))
    parts += [_drill(drill) for drill in statement.drills]
    parts.append(
        "<p>This whole file is signed. To verify it, without any site: "
        "<code>farshore drill verify FILE --key KEY</code></p>\n"
    )
    return f"{''.join(parts)}{embedded}\n</body></html>"


def _drill(drill: DrillInfo) -> str:
    colour = "good" if drill.ok else "bad"
    parts = [f'<h2 class="{colour}">{_text(drill.group)}: {_text(verdict(drill))}</h2>\n']
    parts.append(_table(drill_facts(drill)))
    parts.append("<h3>Steps</h3>\n<table>")
    for step in drill.steps:
        what = _text(f"{step.volume} {step.step}".strip())
        said = f"<pre>{_lines(step.said)}</pre>" if step.said else ""
        parts.append(f"<tr><th>{what}</th><td>{_text(step.state)}, {step.took_s:.2f} s{said}</td></tr>\n")
    parts.append("</table>\n")
    if drill.proof is not None and drill.proof.output:
        parts.append(f"<h3>Output of the check</h3>\n<pre>{_lines(drill.proof.output)}</pre>\n")
    return "".join(parts)


def _table(facts: list[tuple[str, str]]) -> str:
    rows = (f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>\n" for name, value in facts)
    return f"<table>{''.join(rows)}</table>\n"


def _text(value: str) -> str:
    return escape(printable(value))


def _lines(value: str) -> str:
    return escape(printable_lines(value))
