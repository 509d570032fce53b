"""Every bound of the system in one place, checked against each other at import.

Sizes in bytes, counts plain, times in seconds. A bound that an operator may change lives in the daemon's
config with its default here.
"""

from __future__ import annotations

BLOCK_BYTES = 4096
SECTOR_BYTES = 512
DIGEST_BYTES = 16

# Journal frames. A frame is held whole in memory at both sites, so its size bounds memory and latency.
FRAME_BYTES_MAX = 4 << 20
FRAME_EVENTS_MAX = 2000
FRAME_TABLE_BYTES_MAX = 64 << 10
FRAME_PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX - FRAME_TABLE_BYTES_MAX - 4096

# Segments. The largest is tried first; a nearly full disk gets smaller ones.
SEGMENT_BYTES = 64 << 20
SEGMENT_BYTES_MIN = 8 << 20

# Group commit: an fdatasync that nobody asked for starts at whichever comes first.
SYNC_AFTER_BYTES = 16 << 20
SYNC_AFTER_S = 0.2

# Versions kept in RAM before a checkpoint is asked for, and at which hosts are slowed down.
MEMTABLE_VERSIONS_SOFT = 250_000
MEMTABLE_VERSIONS_HARD = 1_500_000
CHECKPOINT_AFTER_BYTES = 1 << 30

VISIBILITY_INTERVALS_MAX = 64
VOLUMES_PER_GROUP_MAX = 256
CLONES_PER_GROUP_MAX = 64
VOLUME_BYTES_MAX = 1 << 50
BLOCKS_MAX = VOLUME_BYTES_MAX // BLOCK_BYTES
NAME_CHARS_MAX = 63
LABEL_CHARS_MAX = 63
# What is said in words to another site: reasons of refusals.
TEXT_CHARS_MAX = 16 << 10
# Generations count changes of authority. Far below what is stored of them (64 bits), so that whoever must
# outrank the highest one always can. A peer that is further ahead of what is known here lies.
GENERATION_MAX = (1 << 62) - 1
GENERATIONS_AHEAD_MAX = 1 << 32

# NBD (proto.md, "Block size constraints" and "Export names").
NBD_EXPORT_NAME_BYTES_MAX = 4096
NBD_REQUEST_BYTES_MAX = 32 << 20
NBD_OPTION_BYTES_MAX = 64 << 10
NBD_HANDSHAKE_TIMEOUT_S = 10.0
NBD_CONNECTIONS_MAX = 1024
NBD_RECEIVE_BUFFER_BYTES = 1 << 20
NBD_REPLY_BUFFER_BYTES_MAX = 64 << 20
# Writes of one connection that wait for the peer, before it is no longer read.
NBD_UNANSWERED_MAX = 16_384

# Replication.
SHIP_IN_FLIGHT_BYTES_MAX = 32 << 20
SHIP_IN_FLIGHT_FRAMES_MAX = 4096
SHIP_READ_BYTES = 8 << 20
# While something is in flight, frames are held back until this much or for this long: a message costs more
# than the small frames in it.
SHIP_MESSAGE_BYTES = 512 << 10
SHIP_HOLD_S = 0.002
HEARTBEAT_INTERVAL_S = 1.0
HEARTBEAT_TIMEOUT_S = 6.0
RECONNECT_DELAY_S = 0.5
RECONNECT_DELAY_MAX_S = 15.0
# A session that ends before this age died young: sessions that do so in a row are dialled later and later.
SESSION_YOUNG_S = 30.0
# Payloads below this are not compressed: the gain would be less than the call.
COMPRESS_BYTES_MIN = 512
# The slowest rate limit of a peer: a message of the largest frame must not take an hour.
RATE_BYTES_S_MIN = 64 << 10
RATE_BYTES_S_MAX = 1 << 40
# How long a host waits for the peer in the synchronous modes, and how soon after a fallback they are tried
# again: at first, and after one failure upon another.
SYNC_TIMEOUT_S = 5.0
SYNC_RETURN_DELAY_S = 1.0
SYNC_RETURN_DELAY_MAX_S = 60.0
MESSAGE_HEADER_BYTES_MAX = 64 << 10
LINEAGE_TIMELINES_MAX = 4096

# A base: the state at its cut comes in parts, which the target holds in memory until it is installed; its
# blocks in frames smaller than they may be, because both ends make or take one at a stroke, beside hosts.
# A journal up to this size goes to a new peer whole: then its history is there too.
HISTORY_SHIPPED_BYTES_MAX = 1 << 30
BASE_PART_BYTES_MAX = 256 << 10
BASE_PARTS_MAX = 192
BASE_PAYLOAD_BYTES = 1 << 20
BASE_INDEX_BYTES = 32 << 20
BASE_UNINDEXED_BYTES_MAX = 256 << 20

# Policies of groups: the longest span between backups, and window; the most that one keep rule counts.
SCHEDULE_SPAN_S_MAX = 100 * 366 * 86_400
KEEP_MAX = 10_000
# Questions between sites. A message of blocks is read at one stroke, beside hosts.
QUESTION_BLOCKS_MAX = 256
QUESTION_CHANGES_MAX = 16_384
QUESTION_CHANGES_BYTES_MAX = 512 << 10
QUESTIONS_IN_FLIGHT_MAX = 4
QUESTIONS_WAITING_MAX = 64
# At the slowest rate limit a full answer takes 16 s.
QUESTION_SILENCE_S = 20.0
LEASE_NAME_BYTES_MAX = 300
LEASE_S_MAX = 7 * 86_400
TIMED_LEASES_MAX = 1024

# Keys in LMDB as it is built everywhere (lmdb.Environment.max_key_size).
KEY_BYTES_MAX = 511

# Control.
CONTROL_MESSAGE_BYTES_MAX = 4 << 20
CONTROL_REQUESTS_IN_FLIGHT_MAX = 256
EVENTS_KEPT_MAX = 10_000

# Drills, as a site keeps them: so many of each group, each a row of its state.
DRILLS_KEPT_MAX = 1000
DRILL_STEPS_MAX = 128
DRILL_SAID_CHARS_MAX = 400
DRILL_BYTES_MAX = 512 << 10

# Hooks that hold hosts still for a backup. Whatever froze them must come to an end by itself.
HOOK_WORDS_MAX = 64
HOOK_CHARS_MAX = 8 << 10
HOOK_TIMEOUT_S = 10.0
HOOK_TIMEOUT_MAX_S = 600.0

# Files inside a volume: what the reader of its file system may say. A name on NTFS has up to 255 characters,
# in UTF-8 three bytes each; Linux takes attributes of up to 64 KiB.
FILE_MESSAGE_BYTES_MAX = 2 << 20
FILE_DATA_BYTES = 1 << 20
FILE_NAME_BYTES_MAX = 1024
FILE_TEXT_CHARS_MAX = 300
FILE_XATTR_BYTES_MAX = 64 << 10
FILE_XATTRS_MAX = 1024
FILE_XATTRS_BYTES_MAX = 256 << 10
FILE_PARTITIONS_MAX = 256
FILE_EXTENTS_IN_MESSAGE_MAX = 4096
FILE_EXTENTS_MAX = 1 << 20
FILE_ENTRIES_IN_DIRECTORY_MAX = 2_000_000
FILE_DEPTH_MAX = 500
FILE_PATH_BYTES_MAX = 64 << 10


def check_limits() -> None:
    """Bounds that depend on each other; called at import so that a bad edit fails every test at once."""
    if FRAME_PAYLOAD_BYTES_MAX % BLOCK_BYTES:
        raise AssertionError("a full frame's payload must be whole blocks")
    if SEGMENT_BYTES_MIN < FRAME_BYTES_MAX + 4096:
        raise AssertionError("the smallest segment must hold the largest frame")
    if SHIP_IN_FLIGHT_BYTES_MAX < 2 * FRAME_BYTES_MAX:
        raise AssertionError("shipping needs room for two frames")
    if SHIP_MESSAGE_BYTES > FRAME_BYTES_MAX:
        raise AssertionError("a message of held frames must not be larger than one frame may be")
    if BASE_PAYLOAD_BYTES > FRAME_PAYLOAD_BYTES_MAX:
        raise AssertionError("a frame of a base must be a frame")
    if BASE_PART_BYTES_MAX * BASE_PARTS_MAX > 48 << 20:
        raise AssertionError("the indexer takes requests of up to 64 MiB")
    if QUESTION_BLOCKS_MAX * BLOCK_BYTES > RATE_BYTES_S_MIN * QUESTION_SILENCE_S:
        raise AssertionError("an answer at the slowest pace must not look like silence")
    if len(b"\0asked by : ") + 2 * NAME_CHARS_MAX + LEASE_NAME_BYTES_MAX > KEY_BYTES_MAX:
        raise AssertionError("a lease that a peer names must have a key")
    if HEARTBEAT_TIMEOUT_S < 3 * HEARTBEAT_INTERVAL_S:
        raise AssertionError("one lost heartbeat must not look like a lost peer")
    if not RECONNECT_DELAY_S < RECONNECT_DELAY_MAX_S < SESSION_YOUNG_S:
        raise AssertionError("the longest delay must be shorter than the life that ends it")
    if DRILL_STEPS_MAX * (4 * DRILL_SAID_CHARS_MAX + 512) + VOLUMES_PER_GROUP_MAX * 128 > DRILL_BYTES_MAX:
        raise AssertionError("a drill's row must hold whatever may be recorded")
    if FILE_DATA_BYTES + FILE_XATTRS_BYTES_MAX > FILE_MESSAGE_BYTES_MAX:
        raise AssertionError("a file's data, and an entry's attributes, must fit a message")
    if 4 * HOOK_CHARS_MAX >= 64 << 10:
        raise AssertionError("an order to a guard must fit into a pipe")
    if MEMTABLE_VERSIONS_HARD < 2 * MEMTABLE_VERSIONS_SOFT:
        raise AssertionError("hosts must not be slowed before a checkpoint had its chance")


check_limits()
