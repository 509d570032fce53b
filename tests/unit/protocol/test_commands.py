"""Control commands and their envelopes: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import msgspec.inspect
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.commands import COMMANDS, AnyCommand
from protocol.commands.backup import BackupCreate
from protocol.commands.base import (
    Command,
    Query,
    check_confirm,
    check_name,
    command_name,
    parse_volume_name,
    reply_type,
)
from protocol.commands.event import Events
from protocol.commands.job import JobCancel, JobShow
from protocol.commands.peer import PeerAdd
from protocol.commands.restore import RestoreVolume
from protocol.commands.site import SiteStatus
from protocol.commands.volume import VolumeCreate
from protocol.cut_text import CutLabel, CutPosition
from protocol.endpoints import IPC_PATH_BYTES_MAX, check_endpoint, check_nbd_address, control_endpoint
from protocol.envelopes import (
    Answer,
    Request,
    decode_answer,
    decode_request,
    decode_request_head,
    encode_answer,
    encode_data,
    encode_request,
    error_answer,
    ok_answer,
)
from protocol.errors import ExitCode, FarshoreError, NotFound, RemoteProtocolError, Unsafe, UsageError
from protocol.limits import CONTROL_MESSAGE_BYTES_MAX
from protocol.roles import OperatorRole

ID = bytes(range(16))
names = st.from_regex(r"[a-z][a-z0-9._-]{0,62}", fullmatch=True)


def request(command: Command, **fields: object) -> Request:
    """A request around a command."""
    return msgspec.structs.replace(Request(id=ID, deadline_s=5.0, command=command), **fields)


def raw_request(**fields: object) -> bytes:
    """Any map, as a stranger might send it."""
    good = {"id": ID, "deadline_s": 5.0, "command": {"name": "site.status"}, "api": 1}
    return msgspec.msgpack.encode({**good, **fields})


def raw_command(**fields: object) -> bytes:
    """A request with any command."""
    return raw_request(command=fields)


@given(names, names, st.integers(1, 1 << 20).map(lambda blocks: blocks * 4096))
def test_a_request_comes_back(group: str, volume: str, size_bytes: int) -> None:
    sent = request(VolumeCreate(group=group, volume=volume, size_bytes=size_bytes), idempotency_key="k")
    assert decode_request(encode_request(sent)) == sent


def test_a_cut_travels_typed() -> None:
    for cut in (CutLabel(label="nightly"), CutPosition(timeline=2**64 - 1, position=7)):
        sent = request(RestoreVolume(group="vm1", volume="root", cut=cut, dry_run=True))
        assert decode_request(encode_request(sent)) == sent


def ints_of(kind: msgspec.inspect.Type, where: str) -> Iterator[tuple[str, msgspec.inspect.IntType]]:
    """Every number that a type holds, with its path."""
    if isinstance(kind, msgspec.inspect.IntType):
        yield where, kind
    elif isinstance(kind, msgspec.inspect.UnionType):
        for each in kind.types:
            yield from ints_of(each, where)
    elif isinstance(kind, msgspec.inspect.StructType) and kind.cls.__module__ != "protocol.cut_text":
        # Cuts check themselves.
        for field in kind.fields:
            yield from ints_of(field.type, f"{where}.{kind.cls.__name__}.{field.name}")
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        yield from ints_of(kind.item_type, where)


def test_every_number_of_a_command_has_room_in_a_message() -> None:
    numbers = list(ints_of(msgspec.inspect.type_info(Request[AnyCommand]), ""))
    assert len(numbers) > 20
    for where, kind in numbers:
        assert kind.ge is not None, where
        assert kind.le is not None or kind.lt is not None, where


@pytest.mark.parametrize("value", [1 << 63, 1 << 64, 10**30])
@pytest.mark.parametrize(("kind", "name"), [(Events, "since"), (JobShow, "job"), (JobCancel, "job")])
def test_a_number_without_room_is_a_usage_error_that_names_it(
    kind: type[Events | JobShow | JobCancel], name: str, value: int
) -> None:
    fields: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=name):
        encode_request(request(kind(**fields)))


def test_text_that_is_not_utf8_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not UTF-8") as caught:
        encode_request(request(PeerAdd(token="FS1.\udcff")))
    assert caught.value.subject == "FS1.\udcff"


@pytest.mark.parametrize(("fields", "api"), [({}, 1), ({"api": 2}, 2)])
def test_a_head_without_a_version_is_of_the_first(fields: dict[str, int], api: int) -> None:
    raw = msgspec.msgpack.encode({"id": ID, "deadline_s": 5.0, "command": {"name": "site.explode"}, **fields})
    with pytest.raises(UsageError):
        decode_request(raw)
    head = decode_request_head(raw)
    assert head is not None
    assert head.api == api


def test_every_command_has_its_own_name_and_says_its_reply() -> None:
    tags = [command_name_of(member) for member in COMMANDS]
    assert len(set(tags)) == len(tags) > 50
    for member in COMMANDS:
        config = member.__struct_config__
        assert config.frozen
        assert config.forbid_unknown_fields
        assert member.__doc__
        reply = reply_type(member)
        assert reply.__struct_config__.frozen
        assert reply.__doc__
    assert command_name(SiteStatus()) == "site.status"


def test_what_changes_something_is_not_called_read_only() -> None:
    changing = {command_name_of(member) for member in COMMANDS if not issubclass(member, Query)}
    assert changing == {
        "operator.add", "operator.remove", "group.rename", "group.delete",
        "peer.add", "peer.set", "peer.replace", "peer.rename", "peer.remove",
        "peer.rotate-key", "site.rotate-key",
        "volume.create", "volume.online", "volume.offline", "volume.delete", "volume.fill", "volume.filled",
        "volume.resize", "volume.rename",
        "seed.begin", "seed.keep", "seed.remove",
        "pair.create", "pair.split", "pair.resync", "pair.set", "pair.delete", "switchover", "takeover",
        "drill.record", "drill.key", "drill.sign", "drill.plan",
        "failback", "branch.drop", "backup.create", "clone.create", "clone.delete",
        "restore.volume", "restore.group",
        "backup.pin", "backup.delete", "backup.delete-many", "backup.prune",
        "schedule.set", "schedule.remove",
        "job.cancel", "verify.start", "backup.lock", "site.accept", "notify.test",
        "volume.allow", "volume.disallow", "site.cert-init", "site.cert-issue", "site.cert-revoke",
    }  # fmt: skip


def test_whom_a_site_trusts_and_what_goes_for_good_is_an_admins_to_say() -> None:
    admins = {command_name_of(member) for member in COMMANDS if member.needs is OperatorRole.ADMIN}
    assert admins >= {
        "peer.add", "peer.set", "peer.replace", "peer.rename", "peer.remove", "peer.rotate-key",
        "site.rotate-key", "site.accept", "group.delete", "volume.delete", "operator.add",
        "volume.allow", "volume.disallow", "site.cert-init", "site.cert-issue", "site.cert-revoke",
    }  # fmt: skip


def command_name_of(member: type) -> str:
    """The tag of a command's class."""
    return str(member.__struct_config__.tag)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        raw_request(id=b"short"),
        raw_request(deadline_s=0),
        raw_request(deadline_s=1e9),
        raw_request(deadline_s=float("nan")),
        raw_request(api=2),
        raw_request(surprise=1),
        raw_request(idempotency_key="k" * 65),
        raw_command(name="volume.explode"),
        raw_command(name="site.status", surprise=1),
        raw_command(name="volume.create", group="vm1", volume="root", size_bytes=-4096),
        raw_command(name="volume.create", group="vm1", volume="root", size_bytes=0),
        raw_command(name="volume.create", group="vm1", volume="root", size_bytes=True),
        raw_command(name="volume.create", group="../etc", volume="root", size_bytes=4096),
        raw_command(name="volume.create", group="vm1", volume="root\n", size_bytes=4096),
        raw_command(name="volume.create", group="vm1", size_bytes=4096),
        raw_command(name="pair.create", group="vm1", peer="par", mode="maybe"),
        raw_command(name="backup.create", group="vm1", label="Nightly"),
        raw_command(name="cut.resolve", group="vm1", cut={"by": "label", "label": "latest"}),
        raw_command(name="cut.resolve", group="vm1", cut={"by": "position", "timeline": -1, "position": 0}),
        raw_command(name="cut.resolve", group="vm1", cut="nightly"),
        raw_command(name="wait", group="vm1", timeout_s=1e9),
        b"\xdc\xff\xff" + b"\x00" * 100,
        b"\x81\xa1\x80",
        b"\x82\xa2id\xc4\x10" + ID + b"\xa1x" + b"\x91" * 100_000,
    ],
)
def test_a_bad_request_is_refused_while_decoding(raw: bytes) -> None:
    with pytest.raises(UsageError):
        decode_request(raw)
    decode_request_head(raw)
    with pytest.raises(RemoteProtocolError):
        decode_answer(raw)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_a_request(raw: bytes) -> None:
    with pytest.raises(UsageError):
        decode_request(raw)
    decode_request_head(raw)
    with pytest.raises(RemoteProtocolError):
        decode_answer(raw)


def test_the_client_refuses_what_the_daemon_would() -> None:
    with pytest.raises(UsageError, match="size_bytes"):
        encode_request(request(VolumeCreate(group="vm1", volume="root", size_bytes=-5)))


def test_a_message_above_the_limit_is_refused() -> None:
    with pytest.raises(UsageError, match="above"):
        decode_request(b"\x00" * (CONTROL_MESSAGE_BYTES_MAX + 1))
    with pytest.raises(RemoteProtocolError):
        decode_answer(b"\x00" * (CONTROL_MESSAGE_BYTES_MAX + 1))


def test_a_reply_above_the_limit_becomes_an_error() -> None:
    raw = encode_answer(ok_answer(ID, encode_data({"rows": "x" * CONTROL_MESSAGE_BYTES_MAX})))
    reply = decode_answer(raw)
    assert reply.id == ID
    with pytest.raises(FarshoreError, match="too large"):
        reply.result()


def test_the_head_of_another_versions_request_can_be_read() -> None:
    head = decode_request_head(raw_request(api=7, surprise={"deep": [1]}))
    assert head is not None
    assert (head.id, head.api) == (ID, 7)
    assert decode_request_head(b"\x00") is None


def test_an_error_travels_whole() -> None:
    sent = NotFound("no volume vm1/x", subject="vm1/x", position="p", next_step="farshore volume list")
    with pytest.raises(NotFound) as caught:
        decode_answer(encode_answer(error_answer(ID, sent))).result()
    assert caught.value.as_dict() == sent.as_dict()


def test_an_unknown_code_keeps_its_word_and_exit_code() -> None:
    class Newer(FarshoreError):
        code = "newer"
        exit_code = ExitCode.DIVERGED

    with pytest.raises(FarshoreError) as caught:
        decode_answer(encode_answer(error_answer(ID, Newer("m")))).result()
    assert (caught.value.code, caught.value.exit_code) == ("newer", ExitCode.DIVERGED)
    assert (FarshoreError.code, FarshoreError.exit_code) == ("failed", ExitCode.FAILED)


def test_a_refusal_without_an_error_is_the_daemons_fault() -> None:
    with pytest.raises(RemoteProtocolError):
        Answer(id=ID, ok=False).result()


def test_volume_names() -> None:
    assert parse_volume_name("vm1/root") == ("vm1", "root")
    for bad in ("vm1", "vm1/", "/root", "vm1/a/b", "VM/root", "vm1/root\n", "vm1/" + "a" * 64):
        with pytest.raises(UsageError):
            parse_volume_name(bad)
    assert check_name("a" * 63, "group")


def test_a_destructive_command_wants_the_name() -> None:
    check_confirm("vm1/root", "vm1/root")
    for wrong in ("", "vm1", "yes"):
        with pytest.raises(Unsafe) as caught:
            check_confirm(wrong, "vm1/root")
        assert "--confirm vm1/root" in caught.value.next_step


def test_endpoints() -> None:
    assert control_endpoint("/srv/lon/") == "ipc:///srv/lon/control.sock"
    assert check_endpoint("tcp://10.0.0.1:7000") == "tcp://10.0.0.1:7000"
    for bad in (
        "ipc://rel/x.sock",
        "ipc://@abstract",
        "tcp://host",
        "tcp://:1",
        "tcp://h:0",
        "http://x:1",
        "x",
    ):
        with pytest.raises(UsageError):
            check_endpoint(bad)


@pytest.mark.parametrize("check", [control_endpoint, lambda path: check_nbd_address(f"unix:{path}")])
def test_a_socket_path_is_utf8(check: Callable[[str], str]) -> None:
    assert check("/srv/\u00e9")
    with pytest.raises(UsageError, match="not UTF-8"):
        check("/srv/\udcff")


def test_a_socket_path_has_a_longest_form() -> None:
    longest = "/" + "d" * (IPC_PATH_BYTES_MAX - len("//control.sock"))
    control_endpoint(longest)
    with pytest.raises(UsageError, match="108 bytes"):
        control_endpoint(longest + "d")
    with pytest.raises(UsageError, match="bytes"):
        control_endpoint("/" + "é" * 60)


def test_a_backup_scope_may_be_a_whole_group() -> None:
    sent = request(BackupCreate(group="vm1", label="nightly"))
    decoded = decode_request(encode_request(sent)).command
    assert isinstance(decoded, BackupCreate)
    assert decoded.volume is None
