"""Watermarks of a group: how far each step of a write's way has come, as positions of the head timeline.

    written ≥ durable ≥ checkpointed            at every site
    written ≥ shipped ≥ remote_written ≥ remote_durable     per peer, at the site that ships

| mark           | everything before it …                              | advanced by        |
|----------------|-----------------------------------------------------|--------------------|
| written        | is in the journal file: survives the process         | journal writer     |
| durable        | was fdatasync'ed: survives power loss                | journal writer     |
| checkpointed   | is in LMDB too: recovery starts here                 | checkpoints        |
| shipped        | was handed to the connection of the current session  | shipper            |
| remote_written | is in the peer's journal file                        | peer's acknowledgement |
| remote_durable | survives the peer's power loss                       | peer's acknowledgement |
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class PeerMarks:
    """What a peer has, in positions of the head's lineage. The last two never go back within a session."""

    shipped: int = 0
    remote_written: int = 0
    remote_durable: int = 0

    def acknowledge(self, written: int, durable: int) -> bool:
        """Take in a cumulative acknowledgement; False if it claims more than was shipped or goes back."""
        if (
            not self.remote_written <= written <= self.shipped
            or not self.remote_durable <= durable <= written
        ):
            return False
        self.remote_written = written
        self.remote_durable = durable
        return True

    def session_over(self) -> None:
        """Nothing is heard any more: what the peer had only written it may lose with its power."""
        self.remote_written = self.remote_durable
