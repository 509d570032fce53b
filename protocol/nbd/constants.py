"""Numbers of the NBD protocol, and the one map from the system's errno to NBD's.

Source: proto.md, "Newstyle negotiation" and "Transmission" for the magics, "Values" for everything else. All
integers on the wire are big-endian. Members that the other side sends are compared as plain ints: an unknown
number is an answer on the wire, never a ValueError here.
"""

from __future__ import annotations

import errno
from enum import IntEnum, IntFlag
from types import MappingProxyType

# "Newstyle negotiation".
NBD_MAGIC = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
# "Fixed newstyle negotiation".
OPTION_REPLY_MAGIC = 0x0003E889045565A9
# "Request message", "Simple reply message", "Structured reply chunk message".
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

# "Newstyle negotiation": the pad after the answer to NBD_OPT_EXPORT_NAME, unless both sides waived it.
EXPORT_NAME_PAD_BYTES = 124
# "Conventions": every string on the wire.
STRING_BYTES_MAX = 4096
# NBD_REPLY_TYPE_BLOCK_STATUS: "Servers SHOULD NOT send more than 2^20 extents in a single reply chunk".
EXTENTS_PER_CHUNK_MAX = 1 << 20

BASE_ALLOCATION = "base:allocation"


class HandshakeFlag(IntFlag):
    """16 bits from the server ("Handshake flags")."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class ClientFlag(IntFlag):
    """32 bits from the client ("Client flags")."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class TransmissionFlag(IntFlag):
    """16 bits that describe an export ("Transmission flags")."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11


class Option(IntEnum):
    """What a client asks during the handshake ("Option types")."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    PEEK_EXPORT = 4
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class OptionReply(IntEnum):
    """What a server answers to an option ("Option reply types"); errors have bit 31 set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = (1 << 31) + 1
    ERR_POLICY = (1 << 31) + 2
    ERR_INVALID = (1 << 31) + 3
    ERR_PLATFORM = (1 << 31) + 4
    ERR_TLS_REQD = (1 << 31) + 5
    ERR_UNKNOWN = (1 << 31) + 6
    ERR_SHUTDOWN = (1 << 31) + 7
    ERR_BLOCK_SIZE_REQD = (1 << 31) + 8
    ERR_TOO_BIG = (1 << 31) + 9
    ERR_EXT_HEADER_REQD = (1 << 31) + 10


OPTION_REPLY_ERROR_BIT = 1 << 31


class InfoType(IntEnum):
    """Kinds of NBD_REP_INFO ("Option reply types")."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Command(IntEnum):
    """Transmission requests ("Request types")."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """16 bits with each request ("Command flags")."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4


class ReplyFlag(IntFlag):
    """16 bits with each structured chunk ("Structured reply flags")."""

    DONE = 1 << 0


class ReplyType(IntEnum):
    """Kinds of structured chunks ("Structured reply types"); errors have bit 15 set."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


class BlockState(IntFlag):
    """Flags of an extent in the context `base:allocation` ("`base:allocation` metadata context")."""

    HOLE = 1 << 0
    ZERO = 1 << 1


class NbdError(IntEnum):
    """Error values on the wire ("Error values"); fixed by the protocol, whatever the system's errno are."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


# EOVERFLOW and ENOTSUP are absent on purpose: the protocol keeps them for refusals of a request's own shape
# (a read too long, a fast zero that would be slow). From the disk they say nothing that a host can act on.
NBD_ERROR_OF_ERRNO: MappingProxyType[int, NbdError] = MappingProxyType(
    {
        errno.EPERM: NbdError.EPERM,
        errno.EACCES: NbdError.EPERM,
        errno.EROFS: NbdError.EPERM,
        errno.ENOMEM: NbdError.ENOMEM,
        errno.EINVAL: NbdError.EINVAL,
        errno.ENOSPC: NbdError.ENOSPC,
        errno.EDQUOT: NbdError.ENOSPC,
        errno.EFBIG: NbdError.ENOSPC,
        errno.ESHUTDOWN: NbdError.ESHUTDOWN,
    }
)


def nbd_error(errno_value: int | None) -> NbdError:
    """The NBD error for an `OSError.errno` ("Error values"); what has no counterpart is EIO."""
    if errno_value is None:
        return NbdError.EIO
    return NBD_ERROR_OF_ERRNO.get(errno_value, NbdError.EIO)
