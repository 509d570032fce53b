"""A drill report for people: the facts of each drill as names and values, and the page of text. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from protocol.commands.drill import DrillInfo
from protocol.printable import printable, printable_lines

NO_PROOF = "recorded by an earlier version: nothing is known of the check, versions and digests"
TITLE = "FARSHORE DRILL REPORT"
_BAR = "      | "


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed: which site says it and when (UTC), by which version and key, and of which drills."""

    format: Literal["farshore drill report 1"] = "farshore drill report 1"
    site: str
    site_id: str
    made: str
    version: str
    key: str
    fingerprint: str
    drills: list[DrillInfo]


def verdict(drill: DrillInfo) -> str:
    """In words that need no legend."""
    return "PROVEN: it was recovered and is good" if drill.ok else "NOT PROVEN: it did not prove good"


def head_facts(statement: Statement) -> list[tuple[str, str]]:
    """Who says it."""
    return [
        ("site", f"{statement.site} (id {statement.site_id})"),
        ("made", statement.made),
        ("Farshore", statement.version),
        ("key", statement.key),
        ("fingerprint", statement.fingerprint),
        ("drills", str(len(statement.drills))),
    ]


def drill_facts(drill: DrillInfo) -> list[tuple[str, str]]:
    """Of one drill, without its steps and its check's output; what there is not is left out."""
    proof = drill.proof
    age = "" if drill.data_age_s is None else f"{drill.data_age_s:g} s"
    facts = [
        ("drill", drill.drill),
        ("group", drill.group),
        ("site", drill.site),
        ("position", drill.cut.text),
        ("state of", drill.cut.time or ""),
        ("started", drill.started),
        ("recovered in", f"{drill.recovery_s:g} s"),
        ("data age", age),
        ("volumes", " ".join(drill.volumes)),
    ]
    if proof is None:
        return [(name, printable(value)) for name, value in [*facts, ("proof", NO_PROOF)] if value]
    code = "not carried out" if proof.exit_code is None else str(proof.exit_code)
    facts[2:2] = [
        ("backup", f"{proof.backup or '(no label)'} (id {proof.backup_id})" if proof.backup_id else "")
    ]
    facts += [
        ("given by", proof.by),
        ("Farshore", proof.version),
        (
            "check",
            proof.hook or ("command line" if proof.command else "none: file systems checked and mounted"),
        ),
        ("command", proof.command),
        ("run as", proof.user),
        ("exit", code if proof.command else ""),
        *(("version", each) for each in proof.tools),
        *((f"digest of {each.volume}", f"{each.digest} ({each.size_bytes} bytes)") for each in proof.digests),
        ("digests", "" if proof.digests else "not taken"),
    ]
    return [(name, printable(value)) for name, value in facts if value]


def text_page(statement: Statement) -> str:
    """All of it."""
    lines = [TITLE, "", *_fields(head_facts(statement))]
    for number, drill in enumerate(statement.drills, 1):
        lines += [
            "",
            f"{number}. {drill.group}: {verdict(drill)}",
            "",
            *_fields(drill_facts(drill)),
            "   steps",
        ]
        for step in drill.steps:
            where = f"{step.volume} " if step.volume else ""
            lines.append(f"      {where}{step.step}: {step.state}, {step.took_s:.2f} s")
            lines += _quoted(step.said)
        if drill.proof is not None and drill.proof.output:
            lines += ["   output of the check", *_quoted(drill.proof.output)]
    lines += ["", "Everything above and the line below is signed. To verify it, without any site:"]
    lines += ["   farshore drill verify FILE --key KEY"]
    return "\n".join(lines)


def _fields(facts: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in facts)
    return [f"   {name:<{width}}  {value}" for name, value in facts]


def _quoted(said: str) -> list[str]:
    """What others said, behind a bar."""
    return [f"{_BAR}{line}" for line in printable_lines(said).split("\n")] if said else []
