"""When hosts must wait for what a peer holds: at a start, and while an operator's choice of its history is
carried out.

    START    until the peer was heard and compared, or was waited for long enough: this site's own journal may
             have lost its tail, which the peer then still has (invariant 5)
    CHOICE   from when an operator chose the peer's history until all of it is here: what a host wrote
             meanwhile would be left as a branch, and what it read is about to change

Each is a hold of its own (`engine.group.serving`). Only the site puts START, before hosts can come.
"""

from __future__ import annotations

from engine.group.holds import Holder, Holds
from site_primary.shipping.comparison import Choice


class HostWait:
    """Keeps hosts out until the peer was asked. `serving`: hosts have been let in since this site started.
    `settled`: the peer answered once, and what it has was compared. `choice`: whose history an operator
    wants. `peer` is its name."""

    def __init__(self, holds: Holds, peer: str) -> None:
        self.serving = False
        self.settled = False
        self.choice = Choice.NONE
        self._patient = True
        self._holds = holds
        self.peer = peer

    def choose(self, choice: Choice) -> None:
        """An operator's word, or NONE once it was carried out or taken back."""
        self.choice = choice
        if choice is Choice.REMOTE:
            self._holds.put(Holder.CHOICE, f"is to go on with what {self.peer} holds")
        else:
            self._holds.lift(Holder.CHOICE)

    def peer_follows(self, *, caught_up: bool) -> None:
        """The peer takes this site's history in, and so serves no host: what it said that it has is all that
        it had. A choice of that is carried out, one of this site's history once the peer caught up."""
        if self.choice is Choice.REMOTE or (self.choice is Choice.LOCAL and caught_up):
            self.choose(Choice.NONE)

    def taking_in(self) -> None:
        """The peer's frames come in: say so where the group is said to be held back."""
        holder = Holder.CHOICE if self.choice is Choice.REMOTE else Holder.START
        self._holds.put(holder, f"takes in what {self.peer} holds")

    def settle(self) -> None:
        """The peer was compared: hosts need not wait for it any longer."""
        self.settled = True
        self.serve()

    def serve(self) -> None:
        """Let hosts in, as far as START is concerned. Not once only: who is held back as an old copy of
        itself takes in what the peer holds also after the wait of the start is over."""
        self.serving = True
        self._holds.lift(Holder.START)

    def no_longer(self, *, taking_in: bool) -> None:
        """The peer was waited for long enough: hosts get in, or, while its frames come in, once that ends."""
        self._patient = False
        self.ended(taking_in=taking_in)

    def ended(self, *, taking_in: bool = False) -> None:
        """A session ended, and with it what came in by it."""
        if not self._patient and not taking_in:
            self.serve()

    def close(self) -> None:
        """The pair is no more: nobody waits for it."""
        self._holds.lift(Holder.START, Holder.CHOICE)
