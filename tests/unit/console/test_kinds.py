"""Kinds of lines that `--json` prints, their schemas, and the snapshot that scripts rely on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from console.kinds import KINDS, REFERENCE, schema
from protocol.errors import ExitCode
from tests.golden.replies import added, broken, fields_of
from tests.support.reply_lines import is_exactly
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import VOLUME_URI

Run = Callable[..., Ran]


def test_every_kind_has_a_schema_that_is_whole() -> None:
    for kind in KINDS:
        text = json.dumps(schema(kind))
        there = {REFERENCE + name for name in schema(kind)["$defs"]}
        used = {each.split('"', 1)[0] for each in text.split('"$ref": "')[1:]}
        assert used == there


def test_a_kind_with_two_types_has_one_or_the_other() -> None:
    data = schema("restore.files")["properties"]["data"]
    assert data == {"anyOf": [{"$ref": f"{REFERENCE}FilesReply"}, {"$ref": f"{REFERENCE}IntoReply"}]}


def test_what_is_always_printed_is_required() -> None:
    defaults = schema("restore.files")["$defs"]["Dropped"]
    assert defaults["required"] == list(defaults["properties"])
    assert not any("default" in each for each in defaults["properties"].values())
    left_out = schema("volume.show")["$defs"]["VolumeShowReply"]
    assert set(left_out["properties"]) - set(left_out["required"]) == {"history"}


def test_the_schema_is_printed_without_a_site(home: Path, farshore: Run) -> None:
    ran = farshore("schema", "backup.list")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == schema("backup.list")
    (line,) = farshore("--json", "schema", "backup.list").json
    assert line["kind"] == "schema"
    assert line["data"] == {"kind": "backup.list", "schema": schema("backup.list")}


def test_kinds_are_listed(home: Path, farshore: Run) -> None:
    assert farshore("schema").out.splitlines() == sorted(KINDS)
    (line,) = farshore("--json", "schema").json
    assert (line["kind"], line["data"]["kinds"]) == ("schema.list", sorted(KINDS))


def test_an_unknown_kind_names_the_nearest(home: Path, farshore: Run) -> None:
    ran = farshore("schema", "backup.lst")
    assert ran.code == ExitCode.NOT_FOUND
    assert ran.err.splitlines()[-1] == "next: did you mean backup.list?"
    assert "`farshore schema`" in farshore("schema", "zzz").err


def test_a_line_is_exactly_of_its_type() -> None:
    data = json.loads(json.dumps({name: getattr(VOLUME_URI, name) for name in VOLUME_URI.__struct_fields__}))
    kind = type(VOLUME_URI)
    assert is_exactly(data, kind)
    assert not is_exactly({**data, "more": 1}, kind)
    assert not is_exactly({**data, "tls": "no"}, kind)
    assert not is_exactly({name: each for name, each in data.items() if name != "tls"}, kind)


KEPT = {"job": {"data.a": "integer or null", "data.b[].c": "string", "data.d": '"off" or "on"'}}


@pytest.mark.parametrize(
    ("now", "breaks", "new"),
    [
        (KEPT["job"], [], []),
        ({**KEPT["job"], "data.e": "string"}, [], ["job: data.e (string) is new"]),
        (
            {**KEPT["job"], "data.d": '"half" or "off" or "on"'},
            [],
            ['job: data.d was "off" or "on", is "half" or "off" or "on"'],
        ),
        ({**KEPT["job"], "data.d": '"on"'}, ['job: data.d was "off" or "on", is "on"'], []),
        ({**KEPT["job"], "data.a": "integer"}, ["job: data.a was integer or null, is integer"], []),
        (
            {**KEPT["job"], "data.b[].c": "absent or string"},
            ["job: data.b[].c was string, is absent or string"],
            [],
        ),
        (
            {"data.a": "integer or null", "data.b[].named": "string", "data.d": '"off" or "on"'},
            ["job: data.b[].c (string) is gone"],
            ["job: data.b[].named (string) is new"],
        ),
    ],
)
def test_what_scripts_would_miss_is_told_from_what_is_new(
    now: dict[str, str], breaks: list[str], new: list[str]
) -> None:
    assert list(broken(KEPT, {"job": now})) == breaks
    assert list(added(KEPT, {"job": now})) == new


def test_a_kind_that_is_gone_breaks_scripts() -> None:
    assert list(broken(KEPT, {})) == ["job: gone"]


def test_fields_are_found_wherever_they_are() -> None:
    found = fields_of(schema("branch.diff")) | fields_of(schema("restore.files"))
    assert found["data.volumes[].extents[][0]"] == "integer"
    assert found["data.branch.writer"] == "string"
    # Of one of the two types only.
    assert found["data.dropped.owners"] == "absent or integer"
    assert found["data.cut.time"] == "null or string"
    assert fields_of(schema("backup.show"))["data.space"] == "absent or object"
    assert fields_of(schema("backup.show"))["data.state.*"] == "string"
    assert fields_of(schema("pair.show"))["data.mode"] == '"async" or "sync" or "sync-strict" or null'


def test_the_table_is_in_order() -> None:
    assert list(KINDS) == sorted(KINDS)
