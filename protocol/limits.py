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
# The latest time that a frame may bring from a peer, and that any is written with: 1 January 2240. A clock
# that is wrong by a century must not stop replication, and Linux lets nobody set one past 2232. A reader
# takes more, up to 2262, so whatever a peer ships leaves room for every frame that this site still writes.
FRAME_UTC_NS_MAX = 8_520_336_000 * 10**9
# The latest time that is stored or asked for: what 63 bits of nanoseconds hold, until 11 April 2262.
UTC_NS_MAX = (1 << 63) - 1
# Frames of history that are not understood: of a group, all in all; of those, how many may have changed
# volumes (each is compared with what is read); how many volumes of a frame are told apart; at how
# many cuts an operator's word for a volume is kept.
UNREAD_FRAMES_MAX = 65_536
UNREAD_TOUCHING_MAX = 4096
UNREAD_VOLUMES_MAX = 16
ACCEPTED_CUTS_MAX = 16

# Segments. A timeline's first ones are small; each may be as large as all before it, up to the largest. A
# frame that does not fit into the smallest gets one of its own size.
SEGMENT_BYTES = 64 << 20
SEGMENT_BYTES_MIN = 1 << 20
# Most that a segment's file may have: a frame that is put back into one may reach past its end. Recovery
# looks through all of a file, and one of many GiB, which may be sparse, would hold up the start.
SEGMENT_FILE_BYTES_MAX = SEGMENT_BYTES + FRAME_BYTES_MAX

SYNC_AFTER_BYTES = 16 << 20  # an fdatasync that nobody asked for starts at this or the next, what comes first
SYNC_AFTER_S = 0.2
UNSYNCED_BYTES_MAX = 128 << 20  # at which hosts and senders wait; a start reads twice as much from the disk

# What the index takes beside the bytes that are moved into it: one part in so many for the pages above them,
# and the pages that any transaction writes anew.
INDEX_SHARE = 8
INDEX_TRANSACTION_BYTES = 1 << 20

# Versions kept in RAM before a checkpoint is asked for, and at which hosts are slowed down.
MEMTABLE_VERSIONS_SOFT = 250_000
MEMTABLE_VERSIONS_HARD = 1_500_000
CHECKPOINT_AFTER_BYTES = 1 << 30

VISIBILITY_INTERVALS_MAX = 2048
# Volumes of a group that live, and that were ever made: all of the latter are looked at when those of a cut
# are listed, which takes some 20 ms with so many.
VOLUMES_PER_GROUP_MAX = 256
VOLUMES_EVER_MAX = 16_384
VOLUME_CHANGES_MAX = 16_384  # of sizes and names, in a group, ever: they are looked at with the volumes
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

# What hosts may cost, one and all together. Each of these has a test that measures it:
# tests/interop/test_host_budgets.py with real sockets, tests/unit/site_primary/nbd in one process.
#
# Connections, in all and of one host: a user on a unix socket, an address (or a /64 of IPv6) on TCP. One host
# cannot take them all, and a machine with a thousand guests of one user is served.
NBD_CONNECTIONS_MAX = 1536
NBD_CONNECTIONS_PER_HOST = 1024
# Who comes while nobody is accepted waits here; net.core.somaxconn may hold it lower. Few are accepted in one
# round of the loop, because each costs those who are served already 0.2 ms.
NBD_BACKLOG = 2048
NBD_ACCEPTS_A_ROUND = 16
# Descriptors that no host may take, and of which no peer makes another group: the journal's next segment and
# the peers come first. Without any left at all, nobody is accepted for a moment.
NBD_DESCRIPTORS_RESERVED = 128
NBD_ACCEPT_PAUSE_S = 0.2
# A host on TCP whose machine has vanished is gone after so long, whether it was idle or had replies on the
# way: `restore volume` wants no host there, and is asked for when machines are lost. A host that is alive and
# takes no reply for as long is shut out too, and connects again.
NBD_KEEPALIVE_IDLE_S = 30
NBD_KEEPALIVE_EVERY_S = 10
NBD_KEEPALIVE_TRIES = 6
NBD_SILENT_S = NBD_KEEPALIVE_IDLE_S + NBD_KEEPALIVE_TRIES * NBD_KEEPALIVE_EVERY_S
# Hosts that may be on the list of a volume.
HOSTS_LISTED_MAX = 256
# A handshake's time, and how much it may ask for before it reads the replies ("The client MUST NOT send any
# option until it has received a final reply").
NBD_HANDSHAKE_TIMEOUT_S = 10.0
NBD_OPTIONS_AT_ONCE_MAX = 64
NBD_OPTION_REPLY_BYTES_MAX = 128 << 10
# Receive buffers: an idle connection has none. The first holds three writes of 4 KiB; a host with more or
# larger ones gets larger buffers while it sends them. With so much lent in all, everybody is handled in small
# pieces until some is back. A few are kept, warm. What comes over TLS shares one, of the second size.
NBD_FIRST_BUFFER_BYTES = 16 << 10
NBD_RECEIVE_BUFFER_BYTES = 256 << 10
NBD_RECEIVE_BUFFERS_BYTES_MAX = 64 << 20
NBD_RECEIVE_BUFFERS_KEPT_BYTES = 4 << 20
# What a connection keeps of a request that is not whole yet, beside those buffers.
NBD_PARKED_BYTES = 32 << 10
# A write up to this size gets into the journal whole or not at all; of a longer one each such piece does as
# it comes, so that nobody holds 32 MiB for a host that may never send the rest.
NBD_WHOLE_WRITE_BYTES = 1 << 20
# A request that has begun must go on: without a byte of it handled for so long, its connection is closed.
NBD_HALF_REQUEST_TIMEOUT_S = 30.0
# One turn of a connection, in blocks read and requests handled: some 2 ms. What takes longer waits for
# another turn, of which there is one in a round of the loop. While hosts leave more than so many bytes of
# replies untaken, all together, a turn is the smaller one.
NBD_TURN_BLOCKS = 512
NBD_TURN_BLOCKS_MIN = 16
NBD_UNSENT_BYTES_MAX = 32 << 20
# Requests of one connection that wait for the disk or the peer, before it is no longer read.
NBD_UNANSWERED_MAX = 16_384
# Lines in the log about what hosts do, of a kind and in so long; the rest is counted.
NBD_LOG_LINES_MAX = 50
NBD_LOG_PERIOD_S = 60.0

# Replication.
# A site's peers, and connections to each, which its pairs share.
PEERS_MAX = 64
PEER_LINKS_MAX = 16
# Groups of a site: each costs descriptors and a map of its index. Pairs with one peer. Groups that a peer
# makes by calling, unless site.toml says fewer: some pairs are the operator's.
GROUPS_MAX = 1024
PEER_PAIRS_MAX = 1008
PEER_GROUPS_MAX = 1000
# Connections to the replication port that have not proven a key yet. Each may hold a message of up to
# FRAME_BYTES_MAX and a descriptor, and what the allocator keeps of those that were shut down comes to a third
# as much again; a peer is one for the few milliseconds of its handshake.
REPLICATION_STRANGERS_MAX = 10
# Connections to one peer that are made at once, so that they are no flood of strangers there. One is being
# made until the peer's first message, for no longer than this after the handshake: a call may have to wait.
DIALS_AT_ONCE_MAX = 4
DIAL_ANSWER_S = 0.1
# Connections of one peer's key: those that its sessions share (versions before had up to 120), one of each
# group that asks something, and some not found to be dead yet. Each may hold a message of FRAME_BYTES_MAX.
PEER_CONNECTIONS_MAX = 256
# Connections that the kernel holds for the replication port until they are accepted.
REPLICATION_BACKLOG = 128
# What is queued for a peer and not yet taken by its connections, in all of them. Up to the first figure its
# questions are answered; then they wait. A peer that reads nothing and asks on loses its connection at the
# second, which is above what an honest one can have under way in a few groups: a fetch and four answers each.
PEER_UNREAD_BYTES_MAX = 24 << 20
PEER_UNREAD_BYTES_END = 40 << 20
# What a queued part is counted with beside its bytes: a frame that tells when it has gone takes 3 KB
# (measured). Else 170,000 short refusals would pass for 34 MB and be half a GB.
PEER_UNREAD_PART_BYTES = 3 << 10
# A peer's share of this site's time, by what it asks and calls (engine.peering.peer_pace): hosts wait in its
# loop. A turn may be taken while less than the burst is owed; a call counts for as long as it took, up to a
# bound, and what commits for some time on the fastest disk too. By what cannot wait a peer may come to owe so
# much that its session ends. A round of messages ends after so long, that others have their turn.
PEER_TIME_SHARE = 0.25
PEER_TIME_BURST_S = 0.03
PEER_CALL_S_MAX = 0.25
PEER_COMMIT_S = 0.002
PEER_DEBT_S_END = 1.0
MESSAGES_TURN_S = 0.002
# Messages below this are not counted by their bytes: acknowledgements, whose number the queue bounds.
PEER_COUNTED_BYTES_MIN = 128
# Descriptors that a site should be allowed: below this a flood of strangers can take the last ones. What a
# site itself takes, with a few hosts and commands; and a group, paired and written: index and its lock 3,
# segment 1, while that is synced 1 more, its link while it asks a peer 4.
DESCRIPTORS_MIN = 10_240
DESCRIPTORS_OF_SITE = 64
DESCRIPTORS_OF_GROUP = 9
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
# After a refusal, and after the same one again and again: a peer may refuse a group for ever, and pays for
# each time. An operator who mends the cause there and waits here waits for 30 s, what chance adds included.
REFUSED_DELAY_S = 5.0
REFUSED_DELAY_MAX_S = 24.0
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
LINEAGE_TIMELINES_MAX, TIMELINES_MAX = 4096, 65_536  # in one message; of a group: one a start, and more

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
# The longest lock of a backup, and window of a site's lock. How often the end of a group's journal is noted
# within that window, and how close together at most.
LOCK_S_MAX = SCHEDULE_SPAN_S_MAX
LOCK_MARKS_A_WINDOW = 128
LOCK_MARK_S_MIN = 1.0
# Questions between sites. A message of blocks is read at one stroke, beside hosts.
PEER_REQUEST_BLOCKS_MAX = 256
PEER_REQUEST_CHANGES_MAX = 16_384
PEER_REQUEST_CHANGES_BYTES_MAX = 512 << 10
PEER_REQUESTS_IN_FLIGHT_MAX = 4
PEER_REQUESTS_WAITING_MAX = 64
# At the slowest rate limit a full answer takes 16 s.
PEER_REQUEST_SILENCE_S = 20.0
# What works for hours asks again for so long without any answer: a daemon of the peer that is restarted, or a
# silence and two more tries, is no reason to give up what is half done.
PEER_REQUEST_PATIENCE_S = 60.0
LEASE_NAME_BYTES_MAX = 300
LEASE_S_MAX = 7 * 86_400
# Of a group, that this site holds for itself, and that peers asked for.
TIMED_LEASES_MAX = 1024
PEER_LEASES_MAX = 1024

# Keys in LMDB as it is built everywhere (lmdb.Environment.max_key_size).
KEY_BYTES_MAX = 511

# Control.
CONTROL_MESSAGE_BYTES_MAX = 4 << 20
CONTROL_REQUESTS_IN_FLIGHT_MAX = 256
# A page of a list has rows up to this size, or one row that is larger. Far below what a reply may have: some
# rows are in two lists of it, and the first page has other parts too (docs/wire-format.md has all bounds).
CONTROL_PAGE_BYTES = 1 << 20
# Rows are built for so long; then hosts have their turn.
CONTROL_TURN_S = 0.002
# A key may have the name of a group whose row cannot be read: up to KEY_BYTES_MAX bytes, each escaped twice.
PAGE_KEY_CHARS_MAX = 4096
# What a site tells its peer of its events at a time.
NEWS_ROWS_MAX = 64
NEWS_FIELDS_MAX = 16
NEWS_TEXT_CHARS_MAX = 1024
NEWS_BYTES_MAX = 2 << 20
# Sections [notify.NAME], and events that wait for one of them.
NOTIFY_TARGETS_MAX = 64
NOTIFY_QUEUE_MAX = 1000
EVENTS_KEPT_MAX = 10_000
# Of one kind, once there is no more room: a kind that comes often displaces itself.
EVENTS_OF_A_KIND_MIN = 500
# What a peer can cause at will, of one kind and about one object: so many are said one by one in each span,
# and the others as one event with their number.
EVENTS_REPEATED_MAX = 20
EVENTS_REPEATED_SPAN_S = 60.0
# Objects (peers, groups) that are told apart so.
EVENTS_REPEATED_OBJECTS_MAX = 1024
# On disk: files of so many bytes, events that wait to be written, and the length of a text in one.
EVENT_FILES_MAX = 8
EVENT_FILE_BYTES_MAX = 4 << 20
EVENTS_UNKEPT_MAX = 1000
EVENT_TEXT_CHARS_MAX = 2000
# A clock that differs by more is said to: a peer's from this site's, or the journal's times from the clock.
# How often two sites tell each other theirs, and the longest round trip that says anything.
CLOCK_SKEW_S = 5.0
CLOCK_ASK_EVERY_S = 5.0
CLOCK_TRIP_S_MAX = 60.0
# Lines of one kind in the log within each span; the next one after it says how many were left out.
LOG_LINES_OF_A_KIND_MAX = 500
LOG_LINES_SPAN_S = 10.0
LOG_KINDS_MAX = 1024
# Of the log, for each stream: what waits for its reader, how soon a reader that failed is tried again, and
# how long the end of the process waits for one.
LOG_QUEUE_BYTES_MAX = 4 << 20
LOG_RETRY_S = 1.0
LOG_STOP_S = 1.0

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
FILE_LACKS_MAX = 64
FILE_PARTITIONS_MAX = 256
FILE_EXTENTS_IN_MESSAGE_MAX = 4096
FILE_EXTENTS_MAX = 1 << 20
FILE_ENTRIES_IN_DIRECTORY_MAX = 2_000_000
# Names, attributes and the like of one directory, as they are kept until it is done.
FILE_DIRECTORY_BYTES_MAX = 256 << 20
FILE_DEPTH_MAX = 500
FILE_PATH_BYTES_MAX = 64 << 10

# A site's witness (daemon.witness): what an old copy lacks of so long before it was made may go unnoticed.
# Each time something was written costs a small file, synced.
WITNESS_EVERY_S = 5.0
WITNESS_BYTES_MAX = 4 << 20


def check_limits() -> None:
    """Bounds that depend on each other; called at import so that a bad edit fails every test at once."""
    if NBD_CONNECTIONS_PER_HOST >= NBD_CONNECTIONS_MAX:
        raise AssertionError("one host must not be able to take every connection")
    if VOLUMES_PER_GROUP_MAX > VOLUMES_EVER_MAX:
        raise AssertionError("a volume that lives was made")
    if PEER_CONNECTIONS_MAX < 8 * PEER_LINKS_MAX:
        raise AssertionError("a peer must be able to ship every group of its pairs and to ask about many")
    if DESCRIPTORS_MIN < DESCRIPTORS_OF_SITE + GROUPS_MAX * DESCRIPTORS_OF_GROUP:
        raise AssertionError("what is advised must do for every group")
    if not PEER_GROUPS_MAX < PEER_PAIRS_MAX < GROUPS_MAX:
        raise AssertionError("one peer must not be able to make every group, or every pair with it")
    if not NBD_PARKED_BYTES < NBD_RECEIVE_BUFFER_BYTES <= NBD_WHOLE_WRITE_BYTES < FRAME_PAYLOAD_BYTES_MAX:
        raise AssertionError("what is parked, buffered and journaled whole must fit into the next")
    if NBD_PARKED_BYTES < 2 * BLOCK_BYTES:
        raise AssertionError("a piece of a write must hold a whole block, wherever it begins")
    if FRAME_PAYLOAD_BYTES_MAX % BLOCK_BYTES:
        raise AssertionError("a full frame's payload must be whole blocks")
    if SEGMENT_BYTES < 2 * FRAME_BYTES_MAX:
        raise AssertionError("a segment must hold the largest frame, and not be cut after each")
    if SEGMENT_BYTES % SEGMENT_BYTES_MIN or (SEGMENT_BYTES // SEGMENT_BYTES_MIN).bit_count() != 1:
        raise AssertionError("the smallest segment doubled must come to the largest")
    if SHIP_IN_FLIGHT_BYTES_MAX < 2 * FRAME_BYTES_MAX:
        raise AssertionError("shipping needs room for two frames")
    if SHIP_MESSAGE_BYTES > FRAME_BYTES_MAX:
        raise AssertionError("a message of held frames must not be larger than one frame may be")
    if BASE_PAYLOAD_BYTES > FRAME_PAYLOAD_BYTES_MAX:
        raise AssertionError("a frame of a base must be a frame")
    if BASE_PART_BYTES_MAX * BASE_PARTS_MAX > 48 << 20:
        raise AssertionError("the indexer takes requests of up to 64 MiB")
    if PEER_REQUEST_PATIENCE_S < 2 * PEER_REQUEST_SILENCE_S:
        raise AssertionError("a question that is asked again must be able to be")
    if PEER_REQUEST_BLOCKS_MAX * BLOCK_BYTES > RATE_BYTES_S_MIN * PEER_REQUEST_SILENCE_S:
        raise AssertionError("an answer at the slowest pace must not look like silence")
    if not FRAME_BYTES_MAX < PEER_UNREAD_BYTES_MAX < PEER_UNREAD_BYTES_END - FRAME_BYTES_MAX < 64 << 20:
        raise AssertionError("a peer must get one answer, wait before it is cut off, and not cost 64 MiB")
    if not MESSAGES_TURN_S < PEER_TIME_BURST_S < PEER_TIME_BURST_S + PEER_CALL_S_MAX < PEER_DEBT_S_END:
        raise AssertionError("what waits for its turn must not end a session")
    if 16 * EVENTS_OF_A_KIND_MIN > EVENTS_KEPT_MAX or EVENTS_REPEATED_MAX >= EVENTS_OF_A_KIND_MIN:
        raise AssertionError("one kind of event must not be able to displace the others")
    if REPLICATION_STRANGERS_MAX * FRAME_BYTES_MAX * 3 // 2 > 64 << 20:
        raise AssertionError("what strangers can cost in memory must stay within 64 MiB")
    if 2 * DIALS_AT_ONCE_MAX >= REPLICATION_STRANGERS_MAX:
        raise AssertionError("a site's dials, and those before that are not heard yet, must be no flood")
    if len(b"\0asked by : ") + 2 * NAME_CHARS_MAX + LEASE_NAME_BYTES_MAX > KEY_BYTES_MAX:
        raise AssertionError("a lease that a peer names must have a key")
    backup_bytes = VOLUMES_PER_GROUP_MAX * 7 * (NAME_CHARS_MAX + 2)
    backup_bytes += (TIMED_LEASES_MAX + PEER_LEASES_MAX) * (LEASE_NAME_BYTES_MAX + 3)
    if 2 * max(CONTROL_PAGE_BYTES, backup_bytes) + (3 << 19) > CONTROL_MESSAGE_BYTES_MAX:
        raise AssertionError("a page of backups must fit into a reply twice, beside gaps and hosts")
    if max(CONTROL_PAGE_BYTES, DRILL_BYTES_MAX) + GROUPS_MAX * (NAME_CHARS_MAX + 2) > 3 << 20:
        raise AssertionError("a page of a site's status must fit into a reply, beside its peers")
    if HEARTBEAT_TIMEOUT_S < 3 * HEARTBEAT_INTERVAL_S:
        raise AssertionError("one lost heartbeat must not look like a lost peer")
    if not RECONNECT_DELAY_S < RECONNECT_DELAY_MAX_S < SESSION_YOUNG_S:
        raise AssertionError("the longest delay must be shorter than the life that ends it")
    if not RECONNECT_DELAY_S < REFUSED_DELAY_S < REFUSED_DELAY_MAX_S <= 30.0 / 1.25:
        raise AssertionError("whoever was refused must come later, but soon after the cause was mended")
    if DRILL_STEPS_MAX * (4 * DRILL_SAID_CHARS_MAX + 512) + VOLUMES_PER_GROUP_MAX * 128 > DRILL_BYTES_MAX:
        raise AssertionError("a drill's row must hold whatever may be recorded")
    if FILE_DATA_BYTES + FILE_XATTRS_BYTES_MAX > FILE_MESSAGE_BYTES_MAX:
        raise AssertionError("a file's data, and an entry's attributes, must fit a message")
    if 4 * HOOK_CHARS_MAX >= 64 << 10:
        raise AssertionError("an order to a guard must fit into a pipe")
    if MEMTABLE_VERSIONS_HARD < 2 * MEMTABLE_VERSIONS_SOFT:
        raise AssertionError("hosts must not be slowed before a checkpoint had its chance")


check_limits()
