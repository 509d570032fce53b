"""Bounds of what is kept and said of drills as proof; `protocol/limits.py` is full. Pure."""

from __future__ import annotations

from protocol.limits import DRILL_BYTES_MAX, NAME_CHARS_MAX, SCHEDULE_SPAN_S_MAX, VOLUMES_PER_GROUP_MAX

# A check: its command as it was given, and what it printed, in characters.
CHECK_COMMAND_CHARS_MAX = 2000
CHECK_OUTPUT_CHARS_MAX = 4000
CHECK_ARGS_MAX = 16
CHECK_ARG_CHARS_MAX = 300
CHECK_USER_CHARS_MAX = 64
# What the check says of the programs that it ran: so many lines.
TOOLS_MAX = 16
TOOL_CHARS_MAX = 200
# As in the row that keeps it (`protocol.bounds.Word`): ours take 37.
DIGEST_CHARS_MAX = NAME_CHARS_MAX
# A row of the site's state.
PROOF_BYTES_MAX = 192 << 10
# Every so often at most and at least is a group to be drilled.
DRILL_EVERY_S_MIN = 60
DRILL_EVERY_S_MAX = SCHEDULE_SPAN_S_MAX
# A report: its drills, and its bytes as it is sent (a reply has 4 MiB) and read.
REPORT_DRILLS_MAX = 100
REPORT_BYTES_MAX = 3 << 20


def _check() -> None:
    row = 4 * (CHECK_COMMAND_CHARS_MAX + CHECK_OUTPUT_CHARS_MAX + TOOLS_MAX * TOOL_CHARS_MAX + 1024)
    if row + VOLUMES_PER_GROUP_MAX * (NAME_CHARS_MAX + DIGEST_CHARS_MAX + 16) > PROOF_BYTES_MAX:
        raise AssertionError("a proof's row must hold whatever may be recorded")
    if DRILL_BYTES_MAX + PROOF_BYTES_MAX > 1 << 20:
        raise AssertionError("a drill must fit into a page of a list")


_check()
