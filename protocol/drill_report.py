"""A drill report: what a site says of drills that it recorded, in a file that proves by itself who says so.

Each of the three formats is signed as a whole. Everything before the seal is the content, the seal is its
end:

    text   content LF "farshore-seal " key " " signature LF
    json   content ',"key":"' key '","signature":"' signature '"}' LF
    html   content LF "<!-- farshore-seal " key " " signature " -->" LF

So a changed byte is found wherever it is: in the content the signature does not fit it any more, in the
seal it is no seal, or not that one. The purpose that is signed names the format (protocol/signatures.py).

Each has the same `Statement` in it as JSON, for programs; only of a file whose seal was verified is that
read. What a check printed may be anything: in HTML all is escaped and nothing is fetched or run, in text
every such line is indented behind a bar, so that no line of it stands where ours do.

Pure: no I/O.
"""

from __future__ import annotations

import re

import msgspec

from protocol.commands.drill import ReportFormat
from protocol.drill_report_html import html_page
from protocol.drill_report_text import TITLE, Statement, text_page
from protocol.errors import Mismatch, NotAllowed, UsageError
from protocol.printable import printable_json
from protocol.proof_limits import REPORT_BYTES_MAX
from protocol.signatures import KEY, SIGNATURE, fingerprint_of, is_signed, is_trusted, key_of, sign

TEXT_JSON = "statement: "
HTML_JSON = ('<script type="application/json" id="statement">', "</script>")
_JSON_OPEN = b'{"statement":'
_SEALS: dict[ReportFormat, re.Pattern[bytes]] = {
    "text": re.compile(rb"\nfarshore-seal (%b) (%b)\n" % (KEY.pattern.encode(), SIGNATURE.pattern.encode())),
    "json": re.compile(
        rb',"key":"(%b)","signature":"(%b)"}\n' % (KEY.pattern.encode(), SIGNATURE.pattern.encode())
    ),
    "html": re.compile(
        rb"\n<!-- farshore-seal (%b) (%b) -->\n" % (KEY.pattern.encode(), SIGNATURE.pattern.encode())
    ),
}
_TRACES = (b"farshore-seal", b'"format":"farshore drill report', TITLE.encode(), HTML_JSON[0].encode())
# As long as the longest of them.
_SEAL_BYTES_MAX = 512


def signed_report(statement: Statement, form: ReportFormat, seed: bytes) -> bytes:
    """The file."""
    encoded = printable_json(msgspec.json.encode(statement).decode())
    match form:
        case "json":
            content = _JSON_OPEN + encoded.encode()
            seal = ',"key":"{}","signature":"{}"}}\n'
        case "html":
            # Within a script element nothing is unescaped, so nothing in it may end it.
            inert = encoded.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
            content = html_page(statement, f"{HTML_JSON[0]}{inert}{HTML_JSON[1]}").encode()
            seal = "\n<!-- farshore-seal {} {} -->\n"
        case "text":
            content = f"{text_page(statement)}\n{TEXT_JSON}{encoded}".encode()
            seal = "\nfarshore-seal {} {}\n"
    return content + seal.format(key_of(seed), sign(seed, _purpose(form), content)).encode()


def verified_report(document: bytes, trusted: str, subject: str) -> tuple[ReportFormat, Statement]:
    """What a report says, if all of it is as the owner of the trusted key or fingerprint signed it.
    UsageError for a file that is no report, NotAllowed if it is another key's, Mismatch if any of it was
    changed."""
    if len(document) > REPORT_BYTES_MAX:
        raise UsageError(f"{subject} is larger than a report may be", subject=subject)
    for form, pattern in _SEALS.items():
        start = max(0, len(document) - _SEAL_BYTES_MAX)
        found = next(
            (each for each in pattern.finditer(document, start) if each.end() == len(document)), None
        )
        if found is not None:
            return form, _opened(document[: found.start()], form, found, trusted, subject)
    # Of one that was changed in a few places some of these are left.
    if any(each in document for each in _TRACES):
        raise _changed(subject, "its seal is damaged, or something stands behind it")
    raise UsageError(
        f"{subject} is no drill report",
        subject=subject,
        next_step="name a file that `farshore drill report --output FILE` wrote",
    )


def _opened(
    content: bytes, form: ReportFormat, seal: re.Match[bytes], trusted: str, subject: str
) -> Statement:
    key, signature = seal[1].decode(), seal[2].decode()
    if not is_signed(key, _purpose(form), content, signature):
        raise _changed(subject, "its signature does not fit what it says")
    if not is_trusted(key, trusted):
        raise NotAllowed(
            f"{subject} is signed by another key: its fingerprint is {fingerprint_of(key)}",
            subject=subject,
            next_step="`farshore drill key` at the site that is named in it prints its key",
        )
    try:
        return msgspec.json.decode(_statement(content, form), type=Statement)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageError(
            f"{subject} is signed, but says what this version cannot read: {error}",
            subject=subject,
            next_step="verify it with the version of Farshore that it names",
        ) from error


def _statement(content: bytes, form: ReportFormat) -> bytes:
    """The JSON in what was verified."""
    match form:
        case "json":
            return content.removeprefix(_JSON_OPEN)
        case "html":
            _, _, rest = content.rpartition(HTML_JSON[0].encode())
            return rest.partition(HTML_JSON[1].encode())[0]
        case "text":
            return content.rpartition(f"\n{TEXT_JSON}".encode())[2]


def _changed(subject: str, why: str) -> Mismatch:
    return Mismatch(
        f"{subject} is not what was signed: {why}",
        subject=subject,
        next_step="get the file anew from whoever made it; do not rely on this one",
    )


def _purpose(form: ReportFormat) -> str:
    return f"drill report 1 {form}"
