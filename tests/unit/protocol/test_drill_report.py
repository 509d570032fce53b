"""Signed drill reports: what was signed is read again, and nothing else is."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from protocol.commands.cut import CutInfo
from protocol.commands.drill import DrillInfo, ProofInfo, ReportFormat, StepInfo, VolumeProof
from protocol.drill_report import signed_report, verified_report
from protocol.drill_report_text import Statement
from protocol.errors import ExitCode, FarshoreError, Mismatch, NotAllowed, UsageError
from protocol.signatures import check_trusted, fingerprint_of, is_signed, key_of, sign

SEED, OTHER_SEED = bytes(range(32)), bytes(range(1, 33))
KEY, OTHER_KEY = key_of(SEED), key_of(OTHER_SEED)
FORMATS: tuple[ReportFormat, ...] = ("text", "json", "html")
HOSTILE = (
    "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)> & \"'\n"
    "\x1b]52;c;aGk=\x07 \u202e\u2066 ]]> <!-- --> \x00\nstatement: {}\nfarshore-seal " + KEY + " " + "0" * 128
)
PROOF = ProofInfo(
    by="uid:0",
    version="0.1.0",
    backup="nightly",
    backup_id="0" * 16,
    hook="sqlite",
    command="sqlite of Farshore",
    user="root (0)",
    exit_code=0,
    output="1 databases are sound",
    tools=["sqlite3 3.40.1"],
    digests=[VolumeProof(volume="v", size_bytes=4096, digest="xxh3:00")],
    digest="sha256:00",
)
DRILL = DrillInfo(
    drill="18ea8c66497fc1e5",
    group="g",
    site="b",
    volumes=["v"],
    cut=CutInfo(timeline="8f3a000000000001", position=8192, text="8f3a000000000001:8192", time=None),
    started="2026-07-02T01:00:00Z",
    ok=True,
    recovery_s=1.5,
    data_age_s=None,
    steps=[StepInfo(volume="", step="check", state="ok", took_s=1.0, said="fine")],
    proof=PROOF,
)
STATEMENT = Statement(
    site="b",
    site_id="0" * 16,
    made="2026-07-02T02:00:00Z",
    version="0.1.0",
    key=KEY,
    fingerprint=fingerprint_of(KEY),
    drills=[DRILL],
)


def hostile() -> Statement:
    """What a check may print, and what a file system may be called."""
    step = StepInfo(volume="v", step="mount", state="ok", took_s=0.0, said=HOSTILE)
    proof = replace(PROOF, output=HOSTILE, command=HOSTILE, tools=[HOSTILE], user=HOSTILE)
    return replace(STATEMENT, drills=[replace(DRILL, steps=[step], proof=proof)])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("trusted", [KEY, fingerprint_of(KEY)])
def test_what_was_signed_is_read_again(form: ReportFormat, trusted: str) -> None:
    for statement in (STATEMENT, hostile(), replace(STATEMENT, drills=[replace(DRILL, proof=None)])):
        document = signed_report(statement, form, SEED)
        assert verified_report(document, trusted, "it") == (form, statement)


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_byte_is_found_wherever_it_is(form: ReportFormat) -> None:
    document = signed_report(STATEMENT, form, SEED)
    for at in range(len(document)):
        for change in (1, 0x20, 0x80):
            changed = bytearray(document)
            changed[at] ^= change
            with pytest.raises(Mismatch):
                verified_report(bytes(changed), KEY, "it")
    for other in (document[:-1], document[1:], document + b"\n", document + document, b" " + document):
        with pytest.raises(Mismatch):
            verified_report(other, KEY, "it")


@pytest.mark.parametrize("form", FORMATS)
def test_another_key_is_refused_with_a_code_of_its_own(form: ReportFormat) -> None:
    forged = signed_report(STATEMENT, form, OTHER_SEED)
    for trusted in (KEY, fingerprint_of(KEY)):
        with pytest.raises(NotAllowed, match=fingerprint_of(OTHER_KEY)) as caught:
            verified_report(forged, trusted, "it")
        assert caught.value.exit_code is ExitCode.NOT_ALLOWED
    # The key that is named in the seal, put in the place of the one that signed.
    swapped = forged.replace(OTHER_KEY.encode(), KEY.encode())
    with pytest.raises(Mismatch):
        verified_report(swapped, KEY, "it")


def test_a_signature_of_one_format_is_none_of_another() -> None:
    content = b"the same"
    assert not is_signed(KEY, "drill report 1 html", content, sign(SEED, "drill report 1 text", content))
    assert not is_signed(
        OTHER_KEY, "drill report 1 text", content, sign(SEED, "drill report 1 text", content)
    )


def test_what_is_no_report_is_said_to_be_none() -> None:
    for document in (b"", b"{}", b"<html></html>", b"\xff" * 1000, bytes(4 << 20)):
        with pytest.raises(UsageError):
            verified_report(document, KEY, "it")


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.shown = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] != "script":
            self.shown += data


def test_a_page_holds_nothing_that_runs_or_comes_from_elsewhere() -> None:
    page = Elements()
    page.feed(signed_report(hostile(), "html", SEED).decode())
    tags = {tag for tag, _ in page.found}
    assert tags <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "table", "tr", "th", "td", "pre",
        "p", "code", "script",
    }  # fmt: skip
    assert [attributes for tag, attributes in page.found if tag == "script"] == [
        {"type": "application/json", "id": "statement"}
    ]
    names = {name for _, attributes in page.found for name in attributes}
    assert names <= {"lang", "charset", "http-equiv", "content", "name", "class", "type", "id"}
    policy = [a["content"] for tag, a in page.found if tag == "meta" and "http-equiv" in a]
    assert policy
    assert "default-src 'none'" in str(policy[0])
    assert "<script>alert(1)</script>" in page.shown  # shown as text
    assert not any(each in page.shown for each in "\x1b\u202e\x00\x07")


def test_no_line_of_a_check_stands_where_ours_do() -> None:
    lines = signed_report(hostile(), "text", SEED).decode().split("\n")
    assert sum(line.startswith("statement: ") for line in lines) == 1
    assert sum(line.startswith("farshore-seal ") for line in lines) == 1
    assert all(line.isprintable() for line in lines)
    assert any(line.strip() == "| statement: {}" for line in lines)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (KEY, KEY),
        (f"site b\nkey   {KEY}\nfingerprint {fingerprint_of(KEY)}\n", KEY),
        (f"Fingerprint: {fingerprint_of(KEY).upper()}", fingerprint_of(KEY)),
        ("nothing", None),
        (f"{KEY} {OTHER_KEY}", None),
        (KEY[:-1], None),
    ],
)
def test_a_key_is_read_out_of_what_stands_around_it(text: str, found: str | None) -> None:
    if found is None:
        with pytest.raises(FarshoreError):
            check_trusted(text, "key.txt")
    else:
        assert check_trusted(text, "key.txt") == found
