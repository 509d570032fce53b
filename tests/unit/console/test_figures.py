"""Figures for people, and how hosts name an export."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from console.figures import (
    age_text,
    local_text,
    parse_rate,
    parse_size,
    parse_span,
    position_text,
    rate_text,
    short_time_text,
    size_text,
    span_text,
)
from console.host_configs import FORMATS, Export, export_of, nbdtab, qemu, systemd, uri
from console.local_time import LocalZone
from protocol.cut_text import CutTime, parse_user_cut
from protocol.errors import UsageError
from tests.unit.console.stub_site import VOLUME_URI

PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("10G", 10 << 30),
        ("10g", 10 << 30),
        ("512MiB", 512 << 20),
        ("4096", 4096),
        ("1.5T", 3 << 39),
        ("1 K", 1024),
        ("1000001", 1_000_001),
    ],
)
def test_sizes_are_binary(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "G", "10GB", "10MB", "-1G", "1e9", "0", "2P", "0.3G", "٣G", "10 000"])
def test_sizes_that_are_none_or_mean_two_things_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@given(st.integers(0, 1 << 62))
def test_a_size_fits_a_column(size_bytes: int) -> None:
    assert len(size_text(size_bytes)) <= 10


def test_figures() -> None:
    assert [size_text(n) for n in (None, 0, 1023, 1024, 1_153_434, 10 << 30)] == [
        "-", "0 B", "1023 B", "1 KiB", "1.1 MiB", "10 GiB",
    ]  # fmt: skip
    assert [span_text(s) for s in (None, 0.42, 14, 180, 23 * 3600, 9 * 86400)] == [
        "-", "0.4 s", "14 s", "3 min", "23 h", "9 d",
    ]  # fmt: skip
    assert age_text(0.3) == "0.3 s ago"
    assert age_text(None) == "-"
    assert position_text("8f3a000000000001", 97_926_000_000) == "8f3a:91.2G"


def test_times_are_shown_in_the_readers_zone() -> None:
    assert local_text("2026-07-03T00:45:00.123456789Z", PARIS) == "2026-07-03 02:45:00 +0200"
    assert local_text(None, PARIS) == local_text("nonsense", PARIS) == "-"
    assert short_time_text("2026-07-03T00:45:00Z", "2026-07-03T01:00:00Z", PARIS) == "02:45"
    assert short_time_text("2026-07-01T00:45:00Z", "2026-07-03T01:00:00Z", PARIS) == "2026-07-01"


@pytest.mark.parametrize("rule", ["Europe/Paris", ":Europe/Paris", "CET-1CEST,M3.5.0,M10.5.0/3"])
def test_the_machines_zone_knows_its_ambiguous_hours(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    now_ns = int(datetime(2026, 10, 25, 12, tzinfo=UTC).timestamp()) * 10**9
    monkeypatch.setenv("TZ", rule)
    time.tzset()
    try:
        zone = LocalZone()
        for text in ("02:30", "2026-03-29 02:30"):
            with pytest.raises(UsageError):
                parse_user_cut(text, now_ns=now_ns, zone=zone)
        for text in ("01:59", "03:00", "yesterday 14:00", "2026-03-29 03:00", "2026-03-29 01:59"):
            here = parse_user_cut(text, now_ns=now_ns, zone=zone)
            assert here == parse_user_cut(text, now_ns=now_ns, zone=PARIS)
            assert isinstance(here, CutTime)
    finally:
        monkeypatch.undo()
        time.tzset()


def export(**fields: object) -> Export:
    """An export on a unix socket, but for what is named."""
    return export_of(replace(VOLUME_URI, **fields))


def test_uris() -> None:
    assert uri(export()) == "nbd+unix:///vm1/root?socket=/srv/lon/nbd.sock"
    assert uri(export(unix=None, tcp="10.0.0.1:10809")) == "nbd://10.0.0.1:10809/vm1/root"
    assert uri(export(unix=None, tcp="[::1]:7", tls=True)) == "nbds://[::1]:7/vm1/root"
    odd = uri(export(export="vm1/root@00000000000000ff:1", unix="/a b&c?#/é"))
    assert odd == "nbd+unix:///vm1/root@00000000000000ff:1?socket=/a%20b%26c%3F%23/%C3%A9"
    with pytest.raises(UsageError, match="no hosts"):
        export(unix=None)


def test_qemu_doubles_commas() -> None:
    text = qemu(export(unix="/a,b/nbd.sock", read_only=True))
    assert "server.path=/a,,b/nbd.sock,export=vm1/root" in text
    assert text.endswith("read-only=on")
    assert "server.type=inet,server.host=h,server.port=1" in qemu(export(unix=None, tcp="h:1"))


def test_libvirt_is_xml_whatever_the_names() -> None:
    for where in ({}, {"unix": None, "tcp": "h:1", "tls": True}):
        text = FORMATS["libvirt"](export(export="vm1/root@a<'\">&b", read_only=True, **where))
        disk = ElementTree.fromstring(text)
        source = disk.find("source")
        assert source is not None
        assert source.get("name") == "vm1/root@a<'\">&b"
        assert disk.find("readonly") is not None


def test_nbdtab_and_systemd() -> None:
    assert nbdtab(export()) == "nbd0 /srv/lon/nbd.sock vm1/root bs=4096,unix,persist"
    with pytest.raises(UsageError):
        nbdtab(export(unix="/a b/nbd.sock"))
    assert '-unix "/a b/100%%$$x/nbd.sock" -name "vm1/root"' in systemd(export(unix="/a b/100%$x/nbd.sock"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("2d", 172_800.0),
        ("0.5s", 0.5),
        ("0s", 0.0),
        ("30 s", 30.0),
        ("2 Weeks", 1_209_600.0),
        ("1 hour 5 min", 3900.0),
    ],
)
def test_a_span_has_units(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-5s", "1.5h", "5m30", "nan", "30  s", "30 sx", "m5", "٣s"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_span(text)


def test_rates_are_read_and_written() -> None:
    assert [parse_rate(text) for text in ("10M", "1.5 MiB", "64K", "none", "NONE")] == [
        10 << 20,
        3 << 19,
        64 << 10,
        0,
        0,
    ]
    assert [rate_text(rate) for rate in (10 << 20, 0, None)] == ["10 MiB/s", "-", "-"]


@pytest.mark.parametrize("text", ["", "0", "1K", "-1M", "10MB", "fast", "2T", "9" * 18 + "P"])
def test_what_is_no_rate_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rate(text)
    assert caught.value.next_step
