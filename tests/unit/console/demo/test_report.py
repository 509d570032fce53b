"""What the demo prints for scripts."""

from __future__ import annotations

import json

import pytest

from console.demo.report import Report
from console.output import Output
from protocol.errors import Mismatch
from tests.support.reply_lines import check_lines


def test_each_step_is_told_to_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(Output(as_json=True))
    with report.step("first") as step:
        step.command("farshore status")
        step.note("a note")
        step.proof("it holds", True, "as it should")
    with pytest.raises(Mismatch, match="it does not"), report.step("second") as step:
        step.proof("it does not", False)
    report.output.result("demo", report.summary(), report.show_summary)
    printed = capsys.readouterr().out
    check_lines(printed)
    *steps, summary = [json.loads(line) for line in printed.splitlines()]
    assert [each["data"]["event"] for each in steps] == [
        "begin", "command", "note", "proof", "end",
        "begin", "proof", "end",
    ]  # fmt: skip
    assert [each["data"]["holds"] for each in steps if "holds" in each["data"]] == [True, False]
    assert (summary["data"]["ok"], summary["data"]["proofs"]) == (False, 1)
