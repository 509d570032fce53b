"""Moving roles: what is asked of the site, what a person is told, and how long waits end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import NoReturn

import pytest
from msgspec.structs import replace

from protocol.commands.pair import PairDelete
from protocol.commands.role import Failback, Switchover, Takeover, TakeoverReply
from protocol.errors import ExitCode, NotAllowed, Unsafe, WrongState
from tests.unit.console.conftest import Ran, run_on_terminal, start_process
from tests.unit.console.stub_site import FAILBACK, PAIR, ROW, STATUS, SWITCHOVER, TAKEOVER, WAIT, StubSite

Run = Callable[..., Ran]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("switchover vm1", "add --confirm vm1"),
        ("switchover vm1 --confirm vm2", "add --confirm vm1"),
        ("takeover vm1", "add --confirm vm1, or look with --plan"),
        ("pair delete vm1", "add --confirm vm1"),
    ],
)
def test_nothing_is_sent_without_the_name(line: str, hint: str, stub: StubSite, farshore: Run) -> None:
    ran = farshore(*line.split(), "--site", str(stub.directory))
    assert ran.code == ExitCode.UNSAFE
    assert f"next: {hint}\n" in ran.err
    assert stub.asked == []


def test_switchover_says_where_hosts_reconnect(stub: StubSite, farshore: Run) -> None:
    ran = farshore("switchover", "vm1", "--confirm", "vm1", "--site", str(stub.directory))
    assert ran.code == 0
    assert "vm1 is written at par now" in ran.out
    assert "8f3a000000000001:8192" in ran.out
    assert "farshore volume uri vm1/VOLUME --site par" in ran.out
    (asked,) = stub.asked
    assert asked == Switchover(group="vm1", confirm="vm1", timeout_s=1.0)


def test_a_hand_over_is_asked_for_once_and_then_watched(stub: StubSite, farshore: Run) -> None:
    stub.replies["switchover"] = replace(SWITCHOVER, done=False, role="primary")
    stub.replies["pair.show"] = lambda _: replace(
        PAIR, role="primary" if len(stub.asked) < 3 else "secondary"
    )
    ran = farshore("switchover", "vm1", "--confirm", "vm1", "--json", "--site", str(stub.directory))
    assert ran.code == 0
    assert [line["kind"] for line in ran.json] == ["progress", "progress", "switchover"]
    assert ran.json[-1]["data"]["done"] is True
    assert [type(command).__name__ for command in stub.asked] == ["Switchover", "PairShow", "PairShow"]


def test_a_hand_over_that_takes_longer_ends_with_22(stub: StubSite, farshore: Run) -> None:
    stub.replies["switchover"] = replace(SWITCHOVER, done=False, role="primary")
    line = ("switchover", "vm1", "--confirm", "vm1", "--timeout", "0", "--site", str(stub.directory))
    ran = farshore(*line)
    assert ran.code == ExitCode.TIMEOUT
    assert "the hand-over goes on" in ran.err
    assert f"next: farshore --site {stub.directory} pair show vm1" in ran.err


def test_ctrl_c_leaves_the_hand_over_going(stub: StubSite) -> None:
    stub.replies["switchover"] = replace(SWITCHOVER, done=False, role="primary")
    words = ("switchover", "vm1", "--confirm", "vm1", "--json", "--site", str(stub.directory))
    with start_process(*words) as process:
        assert process.stdout is not None
        assert '"kind":"progress"' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")
    assert '"detached":true' in out


def test_a_plan_changes_nothing_and_names_the_next_command(stub: StubSite, farshore: Run) -> None:
    stub.replies["takeover"] = replace(TAKEOVER, done=False, took_ms=None)
    ran = farshore("takeover", "vm1", "--plan", "--site", str(stub.directory))
    assert ran.code == 0
    assert "vm1 would be written here from 8f3a000000000001:8192" in ran.out
    assert "nothing acknowledged up to 2026-07-03T00:45:00Z is lost; later writes may be" in ran.out
    assert "2026-07-03 02:45:00 +0200" in ran.out
    assert "4 KiB of journal" in ran.out
    assert "writes of the last 12 s" in ran.out
    assert f"farshore --site {stub.directory} takeover vm1 --confirm vm1" in ran.out
    assert stub.asked == [Takeover(group="vm1", plan=True)]


def test_a_takeover_says_what_is_lost_and_what_comes_next(stub: StubSite, farshore: Run) -> None:
    words = ("takeover", "vm1", "--max-loss", "1m30s", "--confirm", "vm1", "--site", str(stub.directory))
    ran = farshore(*words)
    assert ran.code == 0
    assert stub.asked == [Takeover(group="vm1", max_loss_s=90.0, confirm="vm1")]
    assert "vm1 is written here from 8f3a000000000001:8192" in ran.out
    ours = f"farshore --site {stub.directory}"
    assert f"`{ours} volume uri vm1/VOLUME`; once par is back: `{ours} failback vm1`" in ran.out


def test_unknown_figures_of_a_takeover(stub: StubSite, farshore: Run) -> None:
    unknown = replace(TAKEOVER, none_lost_until=None, known_lost_bytes=0, age_s=None, peer="")
    stub.replies["takeover"] = unknown
    ran = farshore("takeover", "vm1", "--confirm", "vm1", "--site", str(stub.directory))
    assert ran.code == 0
    assert "nothing that is known of" in ran.out
    assert "an unknown amount" in ran.out
    stub.replies["takeover"] = replace(TAKEOVER, nothing_lost=True, known_lost_bytes=0)
    ran = farshore("takeover", "vm1", "--confirm", "vm1", "--site", str(stub.directory))
    assert ["may", "be", "lost", "nothing"] in [line.split() for line in ran.out.splitlines()]
    stub.replies["takeover"] = unknown
    ran = farshore("takeover", "vm1", "--confirm", "vm1", "--site", str(stub.directory))
    assert "failback" not in ran.out


def three_groups(stub: StubSite) -> None:
    """Two groups that `par` writes and others that it does not."""
    rows = [
        replace(ROW, group="vm1", role="secondary"),
        replace(ROW, group="vm2", role="secondary"),
        replace(ROW, group="vm3", role="primary"),
        replace(ROW, group="vm4", role="secondary", peer="ams"),
    ]
    stub.replies["site.status"] = replace(STATUS, groups=rows)


def test_every_group_of_a_peer(stub: StubSite, farshore: Run) -> None:
    three_groups(stub)
    stub.replies["takeover"] = lambda command: replace(TAKEOVER, group=command.group)
    site = ("--site", str(stub.directory))
    assert farshore("takeover", "--from", "par", *site).code == ExitCode.UNSAFE
    stub.asked.clear()
    ran = farshore("takeover", "--from", "par", "--confirm", "par", *site)
    assert ran.code == 0
    assert stub.asked[1:] == [Takeover(group=name, confirm=name) for name in ("vm1", "vm2")]
    assert "vm1 is written here" in ran.out
    assert "vm2 is written here" in ran.out
    planned = farshore("takeover", "--from", "par", "--plan", "--json", *site)
    assert [(line["kind"], line["data"]["group"]) for line in planned.json] == [
        ("takeover.plan", "vm1"),
        ("takeover.plan", "vm2"),
    ]


def test_one_group_that_is_refused_does_not_hold_up_the_others(stub: StubSite, farshore: Run) -> None:
    three_groups(stub)

    def refuse_the_first(command: Takeover) -> TakeoverReply:
        if command.group == "vm1":
            raise Unsafe("too old", subject="vm1")
        return replace(TAKEOVER, group=command.group)

    stub.replies["takeover"] = refuse_the_first
    ran = farshore("takeover", "--from", "par", "--confirm", "par", "--site", str(stub.directory))
    assert ran.code == ExitCode.PARTIAL
    assert "error: too old" in ran.err
    assert "vm2 is written here" in ran.out


def test_a_peer_whose_groups_are_all_refused(stub: StubSite, farshore: Run) -> None:
    three_groups(stub)

    def refuse(_command: object) -> NoReturn:
        raise NotAllowed("par answers")

    stub.replies["takeover"] = refuse
    words = ("takeover", "--from", "par", "--confirm", "par", "--site", str(stub.directory))
    assert farshore(*words).code == ExitCode.NOT_ALLOWED
    stub.replies["site.status"] = replace(STATUS, groups=[])
    assert farshore(*words).code == ExitCode.NOT_FOUND


def test_failback_waits_until_the_other_site_follows(stub: StubSite, farshore: Run) -> None:
    stub.replies["failback"] = replace(FAILBACK, state="copying", code="COPY")
    stub.replies["wait"] = lambda _: replace(WAIT, reached=len(stub.asked) >= 3)
    ran = farshore("failback", "vm1", "--json", "--site", str(stub.directory))
    assert ran.code == 0
    assert [line["kind"] for line in ran.json] == ["progress", "failback"]
    data = ran.json[-1]["data"]
    assert (data["state"], data["tail_bytes"]) == ("paired", 12_288)
    assert stub.asked[0] == Failback(group="vm1")


def test_failback_names_the_branch_and_the_switchover(stub: StubSite, farshore: Run) -> None:
    ran = farshore("failback", "vm1", "--site", str(stub.directory))
    assert "12 KiB of journal: `farshore branch list vm1 --site par`" in ran.out
    assert f"farshore --site {stub.directory} switchover vm1" in ran.out
    stub.replies["failback"] = replace(FAILBACK, fork=None, tail_bytes=0)
    assert "none" in farshore("failback", "vm1", "--site", str(stub.directory)).out


def test_a_failback_that_is_refused_says_the_sites_reason(stub: StubSite, farshore: Run) -> None:
    def refuse(_command: object) -> NoReturn:
        raise WrongState("par does not answer yet", next_step="start it")

    stub.replies["failback"] = refuse
    ran = farshore("failback", "vm1", "--site", str(stub.directory))
    assert (ran.code, ran.err) == (ExitCode.WRONG_STATE, "error: par does not answer yet\nnext: start it\n")


def test_a_person_sees_the_plan_of_a_takeover_and_types_the_name(stub: StubSite) -> None:
    stub.replies["takeover"] = lambda command: replace(TAKEOVER, done=not command.plan)
    words = ("takeover", "vm1", "--site", str(stub.directory))
    for answer, code in (("yes", ExitCode.UNSAFE), ("vm1", ExitCode.OK)):
        stub.asked.clear()
        screen, returned = run_on_terminal(words, prompt="to take it over: ", answer=answer)
        assert returned == code, screen
        assert "vm1 would be written here from" in screen
        assert [command.plan for command in stub.asked] == ([True, False] if code == 0 else [True])


def test_a_person_types_the_name_before_hosts_are_disconnected(stub: StubSite) -> None:
    screen, code = run_on_terminal(
        ("switchover", "vm1", "--site", str(stub.directory)), prompt="to hand it over: ", answer="vm1"
    )
    assert code == 0, screen
    assert "vm1 would be written at par" in screen
    assert isinstance(stub.asked[-1], Switchover)


def test_a_person_types_the_name_before_a_pair_ends(stub: StubSite) -> None:
    screen, code = run_on_terminal(
        ("pair", "delete", "vm1", "--site", str(stub.directory)),
        prompt="to end its pair here: ",
        answer="vm1",
    )
    assert code == 0, screen
    assert stub.asked[-1] == PairDelete(group="vm1", confirm="vm1")
