"""One target a decoder: bytes of a stranger go in, and a value or the decoder's own typed error comes out.

Anything else is a finding: another exception, a value that does not encode again to what it was, or one that
is out of the bounds that whoever uses it relies on.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import msgspec
from crc32c import crc32c
from xxhash import xxh3_128_digest

from daemon.config import load_config
from daemon.peer_tokens import make_token, read_token
from daemon.peers import Peer
from engine.copies.copy_marks import copy_marks
from engine.group.clone_rows import clone_rows
from engine.group.site_state import SITE_TABLES, SiteState
from engine.history.base_rows import load_bases, load_pending
from engine.index.indexed_history import load_checkpoint, load_records, load_timelines
from engine.index.indexer import REQUEST_BYTES_MAX
from engine.index.versions import TABLES
from engine.integrity.drills import Drills
from engine.ports.store import Store
from engine.retention.needed import Retention
from protocol.base_holes import check_holes, cut_out, put_back
from protocol.base_messages import BaseHoled, encode_parts, records_in, timelines_in
from protocol.compress import Compression, compress, decompress
from protocol.cut_text import cut_text, parse_export_cut, parse_fixed_cut, parse_user_cut
from protocol.envelopes import decode_answer, decode_request, decode_request_head, encode_request
from protocol.errors import Corruption, FarshoreError, RemoteProtocolError, UsageError
from protocol.events import LAST_DATA_KIND, record_from_row, records_of
from protocol.file_stream import (
    Data,
    Done,
    Extents,
    IncomingAnswers,
    IncomingRequests,
    List,
    Open,
    Read,
    Trouble,
)
from protocol.file_stream import encode as encode_file_message
from protocol.frames import NO_DIGEST, FrameError, check_frame, decode_rows, frames_in, parse_prefix
from protocol.guarding import decode_order, decode_report
from protocol.limits import BLOCK_BYTES, BLOCKS_MAX, FRAME_BYTES_MAX
from protocol.messages import FrameMessage, decode_message, refusal_of
from protocol.positions import POSITION_MAX, parse_cut
from protocol.rows import pack_row, unpack_row
from protocol.seed_limits import SEED_CHUNK_BYTES
from tests.golden.encoded import load
from tests.golden.engine_samples import REQUESTS
from tests.golden.sites import session_messages
from tests.sim.sim_store import SimStore, StoreFile
from tests.unit.protocol.nbd.other_side import parse_requests

NOW_NS = 1_763_000_000_000_000_000


@dataclass(frozen=True)
class Target:
    """A decoder: `run` takes any bytes and raises only for a finding; `seeds` are good inputs."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


class Finding(AssertionError):
    """A decoder did what it may not."""


@contextmanager
def only(*errors: type[Exception]) -> Iterator[None]:
    """These are how bytes are refused; another exception passes and is a finding."""
    try:
        yield
    except errors:
        pass


def require(holds: bool, what: str) -> None:
    """Finding unless it holds."""
    if not holds:
        raise Finding(what)


def canonical(data: bytes) -> bytes | None:
    """The same msgpack in its shortest forms; None if it is none."""
    try:
        return msgspec.msgpack.encode(msgspec.msgpack.decode(data))
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        return None


def message(data: bytes) -> None:
    """A header between sites, and what is answered to a bad one."""
    try:
        found = decode_message(data)
    except RemoteProtocolError as error:
        answer = refusal_of(data, error)
        if answer is not None:
            decode_message(answer)
        return
    raw = found.encode()
    require(decode_message(raw) == found, "a message is another after a round trip")
    if canonical(data) == data and not isinstance(found, FrameMessage):
        require(raw == data, "a message in its shortest form encodes to other bytes")


def event(data: bytes) -> None:
    """A record's row."""
    with only(RemoteProtocolError):
        record = record_from_row(unpack_row(data))
        raw = pack_row(record.to_row())
        require(record_from_row(unpack_row(raw)) == record, "a record is another after a round trip")
        if canonical(data) == data:
            require(raw == data, "a record in its shortest form encodes to other bytes")


def _check_rows(raw: bytes) -> None:
    prefix = parse_prefix(raw)
    rows = decode_rows(prefix, raw)
    require(0 < len(rows) == prefix.events, "the number of events is not that of the prefix")
    if rows[0][0] > LAST_DATA_KIND:
        with only(RemoteProtocolError):
            require(len(records_of(rows)) == len(rows), "records and data share a frame")
        return
    for kind, volume, first, count in rows:
        require(1 <= kind <= 3 and 0 <= volume <= POSITION_MAX, "a data row of no kind or volume")
        require(0 <= first < first + count <= BLOCKS_MAX, "a data row outside every volume")
    written = sum(row[3] for row in rows if row[0] == 1)
    require(written * BLOCK_BYTES == prefix.payload_bytes, "payload and rows disagree")


def frames(data: bytes) -> None:
    """Frames end to end, as a peer or a segment has them."""
    with only(FrameError):
        for frame in frames_in(data):
            check_frame(frame.prefix, frame.raw, None)
            _check_rows(bytes(frame.raw))


def frame_table(data: bytes) -> None:
    """The event table of a frame whose lengths and checksums are right: events u16, blocks u8, table."""
    if len(data) < 4:
        return
    events, blocks = struct.unpack_from(">HB", data)
    body = (
        b"\x92" + data[3:] + b"\xc6" + struct.pack(">I", blocks * BLOCK_BYTES) + bytes(blocks * BLOCK_BYTES)
    )
    fields = (b"FSHF", 1, events, len(body), blocks * BLOCK_BYTES, 4096, 77, NOW_NS, 0)
    head = struct.pack(">4sHHIIQQQQII", *fields, crc32c(body), 0)
    raw = head + xxh3_128_digest(NO_DIGEST + head + xxh3_128_digest(body)) + body
    with only(FrameError):
        check_frame(parse_prefix(raw), raw, NO_DIGEST)
        _check_rows(raw)


def base_part(data: bytes) -> None:
    """A part of the state that a base comes with."""
    with only(RemoteProtocolError):
        timelines, records = timelines_in(data), records_in(data)
        parts = encode_parts(timelines, records)
        again = ([each for part in parts for each in timelines_in(part)],
                 [each for part in parts for each in records_in(part)])  # fmt: skip
        require(again == (timelines, records), "a part is another after a round trip")


def base_holed(data: bytes) -> None:
    """A frame that came with holes: the length of the header u16, the header, the payload."""
    if len(data) < 2:
        return
    (length,) = struct.unpack_from(">H", data)
    header, left = data[2 : 2 + length], data[2 + length :]
    with only(RemoteProtocolError):
        message = decode_message(header)
        if not isinstance(message, BaseHoled):
            return
        check_holes(message.holes, message.frame_bytes, (3, 1))
        frame = put_back(left, message.holes, message.frame_bytes, lambda *_: b"s" * SEED_CHUNK_BYTES)
        require(len(frame) == message.frame_bytes, "a frame is not as long as was said")
        require(cut_out(frame, message.holes) == left, "a frame is another after its holes were filled")


def index_request(data: bytes) -> None:
    """A request to the indexer, of any kind."""
    kinds = {request.kind(): type(request) for request in REQUESTS}
    with only(RemoteProtocolError):
        kind, *fields = unpack_row(data, REQUEST_BYTES_MAX) or ("",)
        if not isinstance(kind, str) or kind not in kinds:
            return
        found = kinds[kind].from_row(tuple(fields))
        again = kinds[kind].from_row(tuple(unpack_row(pack_row(found.to_row()))))
        require(again == found, "a request is another after a round trip")


def control(data: bytes) -> None:
    """Requests and replies of the console."""
    decode_request_head(data)
    with only(UsageError):
        request = decode_request(data)
        raw = encode_request(request)
        require(decode_request(raw) == request and encode_request(decode_request(raw)) == raw, "a command")
    with only(RemoteProtocolError):
        decode_answer(data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def token(data: bytes) -> None:
    """A site's token."""
    with only(UsageError):
        peer = read_token(_text(data))
        require(read_token(make_token(peer)) == peer, "a token is another after a round trip")


def cut(data: bytes) -> None:
    """A cut as people and export names write it."""
    text = _text(data)
    with only(UsageError):
        parse_cut(text)
    for parse in (parse_fixed_cut, parse_export_cut):
        with only(UsageError):
            found = parse(text)
            require(parse(cut_text(found)) == found, "a cut is another after a round trip")
    with only(UsageError):
        parse_user_cut(text, now_ns=NOW_NS, zone=UTC)


def config(data: bytes) -> None:
    """site.toml."""
    directory = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        (directory / "site.toml").write_bytes(data)
        with only(UsageError):
            load_config(directory)
    finally:
        shutil.rmtree(directory)


def row(data: bytes) -> None:
    """Any row."""
    with only(RemoteProtocolError):
        raw = pack_row(unpack_row(data))
        require(pack_row(unpack_row(raw)) == raw, "a row is another after a round trip")


def _with(tables: tuple[str, ...], rows: dict[str, dict[bytes, bytes]]) -> Store:
    store = SimStore(StoreFile(), tables)
    with store.write() as write:
        for table, values in rows.items():
            for key, value in values.items():
                write.put(table, key, value)
    return store


def stored_row(data: bytes) -> None:
    """A value of every table of the state store and of the index that holds rows."""
    key = b"g\0" + bytes(8)
    tables = {"groups": b"g", "pairs": b"g", "drops": key, "leases": key, "clones": b"g", "drills": key,
              "copy_marks": key}  # fmt: skip
    store = _with(SITE_TABLES, {table: {name: data} for table, name in tables.items()})
    state = SiteState(store)
    reads: tuple[Callable[[], object], ...] = (
        state.groups, lambda: state.pair("g"), lambda: state.drops("g"), lambda: state.leases("g"),
        lambda: copy_marks(state, "g"), lambda: clone_rows(state, "g"), lambda: Drills(store).of("g"),
        lambda: Retention.from_value(data))  # fmt: skip
    for read in reads:
        with only(RemoteProtocolError, Corruption):
            read()
    meta = {b"checkpoint": data, b"base" + bytes(8): data, b"pending-base": data}
    index = _with(TABLES, {"meta": meta, "timelines": {bytes(8): data}, "records": {bytes(16): data}})
    with index.read() as transaction:
        for load_rows in (load_checkpoint, load_bases, load_pending, load_timelines):
            with only(RemoteProtocolError):
                load_rows(transaction)
        with only(RemoteProtocolError):
            list(load_records(transaction))


def compressed(data: bytes) -> None:
    """A payload that says it is compressed."""
    with only(RemoteProtocolError):
        require(len(decompress(data)) <= FRAME_BYTES_MAX, "more came out than may")


def file_stream(data: bytes) -> None:
    """What the reader of file systems says, and is asked."""
    for incoming in (IncomingAnswers(), IncomingRequests()):
        with only(RemoteProtocolError):
            for each in incoming.take(data):
                encode_file_message(each)


def guard(data: bytes) -> None:
    """Lines between a freeze's guard and the daemon."""
    for decode in (decode_order, decode_report):
        with only(FarshoreError, RemoteProtocolError):
            decode(data)


def nbd_request(data: bytes) -> None:
    """Requests of a host, in the transmission phase."""
    with only(RemoteProtocolError):
        for _ in parse_requests(data):
            pass


def _seeds(kind: str) -> tuple[bytes, ...]:
    return tuple(load()[kind])


def _frame_seeds() -> tuple[bytes, ...]:
    return (*_seeds("frames")[:-1], *(bytes(p) for heard, _, p in session_messages() if heard and p))


def _table_seeds() -> tuple[bytes, ...]:
    events = _seeds("events")
    return (*(b"\0\1\0\x91" + each for each in events), b"\0\2\1\x92\x94\1\1\0\1\x94\2\1\0\1")


PEER = Peer(
    name="par",
    site_id="00ff00ff12345678",
    endpoint="tcp://par.example:7411",
    public_key="rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
)
CUTS = (
    b"nightly", b"000000000000004d:197", b"now", b"latest", b"-10m", b"02:45", b"yesterday 14:00",
    b"2026-11-28T20:00:00Z", b"2026-11-28T20:00:00.123456789+01:00", b"0123456789abcdef",
)  # fmt: skip
FILE_MESSAGES = tuple(
    encode_file_message(each)
    for each in (
        Open(partition=1), List(number=2), Read(number=3), Data(offset=8, data=b"x"), Done(),
        Extents(size_bytes=9, extents=((0, 4), (8, 1)), more=False), Trouble(name=b"b", text="why"),
    )
)  # fmt: skip
GUARD_LINES = (b'{"freeze":["a"],"thaw":["b"],"timeout_s":5}\n', b'{"what":"frozen"}\n')


def _holed_seeds() -> tuple[bytes, ...]:
    found = []
    for holes, left in (
        (((10, 4096, 0, 0),), 20),
        (((0, 4096, 0, 0), (4096, SEED_CHUNK_BYTES, 1, 0), (70_000, 8192, 0, SEED_CHUNK_BYTES - 4096)), 100),
    ):
        frame_bytes = left + sum(length for _, length, _, _ in holes)
        header = BaseHoled(
            session=9, base=3, compression=Compression.NONE, frame_bytes=frame_bytes, holes=holes
        ).encode()
        found.append(struct.pack(">H", len(header)) + header + bytes(left))
    return tuple(found)


CONFIG = b"""name = "a"
replication = "tcp://127.0.0.1:7411"
nbd = ["unix:/run/x.sock"]
window_s = 86400
[hooks.pg]
freeze = ["a", "b"]
thaw = ["c"]
timeout_s = 5
"""

TARGETS = {
    target.name: target
    for target in (
        Target("message", message, (*_seeds("messages"), *(header for _, header, _ in session_messages()))),
        Target("event", event, _seeds("events")),
        Target("frames", frames, _frame_seeds()),
        Target("frame_table", frame_table, _table_seeds()),
        Target("base_part", base_part, _seeds("base parts")),
        Target("base_holed", base_holed, _holed_seeds()),
        Target("index_request", index_request, _seeds("index requests")),
        Target("control", control, _seeds("control")),
        Target("token", token, (make_token(PEER).encode(),)),
        Target("cut", cut, CUTS),
        Target("config", config, (CONFIG,)),
        Target("row", row, _seeds("state rows")),
        Target("stored_row", stored_row, (*_seeds("index rows")[:4],)),
        Target("compressed", compressed, (compress(bytes(4096)) or b"",)),
        Target("file_stream", file_stream, FILE_MESSAGES),
        Target("guard", guard, GUARD_LINES),
        Target("nbd_request", nbd_request, (struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 2) + b"ab",)),
    )
}
