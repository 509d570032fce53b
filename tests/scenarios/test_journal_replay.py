"""A dead site's directory, copied elsewhere: its volume at any cut, no daemon, and nothing changed in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from console.demo.host import Host
from tests.support.clients import MIB, succeed
from tests.support.oracle import Oracle
from tests.support.sites import COMMAND_TIMEOUT_S, ROOT, Site, farshore_command, running_sites

SIZE = 32 * MIB
LABELS = ("one", "two", "three")


def replay(directory: Path, output: Path, *words: str, exit_code: int = 0) -> Any:
    """`farshore journal replay`, as somebody would who has nothing but the directory."""
    always = ("journal", "replay", str(directory), "--output", str(output), "--replace", "--json")
    environment = {"PATH": os.environ["PATH"], "HOME": str(output.parent), "NO_COLOR": "1"}
    done = subprocess.run(
        [*farshore_command(), *always, *words],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        env=environment,
        cwd=output.parent,
        check=False,
    )
    assert done.returncode == exit_code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    return answer.get("data") or answer["errors"][0]


def fingerprint(directory: Path) -> dict[str, str]:
    """Every file by name, with what is in it and when it was written."""
    return {
        str(path.relative_to(directory)): f"{path.stat().st_mtime_ns} "
        + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(directory.rglob("*"))
        if not path.is_socket()
    }


class Dead:
    """A copy of the directory of a site that was killed, and what its volume held at each label and last."""

    def __init__(self, directory: Path, expected: dict[str, bytes]) -> None:
        self.directory = directory
        self.expected = expected

    @property
    def group(self) -> Path:
        return self.directory / "groups" / "g"

    def segments(self) -> list[Path]:
        """Journal files, by timeline and position."""
        return sorted((self.group / "journal").glob("*/*.seg"))

    def last_bytes(self) -> tuple[Path, int]:
        """The newest segment with frames, and where its data ends."""
        found = [(path, len(data)) for path in self.segments() if (data := path.read_bytes().rstrip(b"\0"))]
        return max(found, key=lambda each: each[0].name)


def write(site: Site, oracle: Oracle, count: int) -> None:
    with Host(site.nbd_socket, "g/v") as host:
        oracle.write(host, oracle.some_blocks(count))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Dead:
    """Three labels, a restart and a restore among them, and writes after the last; then kill -9."""
    oracle = Oracle(SIZE, 11)
    expected: dict[str, bytes] = {}
    copied = tmp_path_factory.mktemp("dead") / "copy"
    with running_sites("lon") as (site,):
        site.create_volume("g/v", str(SIZE))
        for label in LABELS:
            write(site, oracle, 1500)
            site.farshore("backup", "create", "g", "--label", label)
            expected[label] = bytes(oracle.image)
            if label == "one":
                site.stop()  # with a checkpoint
                site.start()
            if label == "two":
                site.farshore("restore", "volume", "g/v", "--at", "one", "--confirm", "g/v")
                site.farshore("volume", "online", "g/v")
                oracle.image[:] = expected["one"]
        for count in (700, 1):  # the last frame says that those before it are durable
            write(site, oracle, count)
            with Host(site.nbd_socket, "g/v") as host:
                host.flush()
        expected["latest"] = bytes(oracle.image)
        site.kill()
        shutil.copytree(site.directory, copied, ignore=shutil.ignore_patterns("*.sock"))
    return Dead(copied, expected)


@pytest.fixture
def dead(original: Dead, tmp_path: Path) -> Dead:
    """A copy for one test to damage."""
    return Dead(Path(shutil.copytree(original.directory, tmp_path / "site")), original.expected)


def test_every_label_equals_the_oracle_and_nothing_is_changed(dead: Dead, tmp_path: Path) -> None:
    image = tmp_path / "v.img"
    shutil.rmtree(dead.directory / "keys")
    before = fingerprint(dead.directory)
    os.chmod(dead.directory, 0o500)
    for until in (*LABELS, "latest"):
        done = replay(dead.directory, image, "--until", until)
        assert image.read_bytes() == dead.expected[until], until
        assert done["lost"] == []
        assert (done["volume"], done["notes"]) == ("g/v", [])
    same = replay(dead.directory, image, "--until", done["cut"]["text"], "--volume", "g/v")
    assert same["digest"] == done["digest"]
    os.chmod(dead.directory, 0o700)
    assert fingerprint(dead.directory) == before


@pytest.mark.parametrize("how", ["missing", "garbage", "left out"])
def test_without_an_index_the_journal_will_do(dead: Dead, tmp_path: Path, how: str) -> None:
    index = dead.group / "index.mdb"
    words = []
    if how == "missing":
        index.unlink()
    elif how == "garbage":
        index.write_bytes(b"\xa5" * 100_000)
    else:
        words = ["--without-index"]
    image = tmp_path / "v.img"
    done = replay(dead.directory, image, "--until", "three", *words)
    assert image.read_bytes() == dead.expected["three"]
    assert bool(done["notes"]) == (how != "left out")


def test_without_the_state_the_newest_history_is_taken(dead: Dead, tmp_path: Path) -> None:
    (dead.directory / "state.mdb").unlink()
    (dead.directory / "identity.json").unlink()
    image = tmp_path / "v.img"
    done = replay(dead.directory, image)
    assert image.read_bytes() == dead.expected["latest"]
    assert "newest" in done["notes"][0]


def test_a_torn_tail_is_left_out_and_said(dead: Dead, tmp_path: Path) -> None:
    path, end = dead.last_bytes()
    os.truncate(path, end - 100)
    image = tmp_path / "v.img"
    done = replay(dead.directory, image, "--until", "latest")
    assert "no whole frame" in done["notes"][0]
    replay(dead.directory, image, "--until", "three")
    assert image.read_bytes() == dead.expected["three"]


def test_damage_in_the_journal_stops_there_and_is_said(dead: Dead, tmp_path: Path) -> None:
    """What was promised later cannot be read; what lies before can."""
    path, end = dead.last_bytes()
    data = bytearray(path.read_bytes())
    data[end // 2] ^= 1
    path.write_bytes(data)
    image = tmp_path / "v.img"
    done = replay(dead.directory, image, "--until", "one")
    assert image.read_bytes() == dead.expected["one"]
    assert "damaged" in done["notes"][0]
    end_text = done["end"]["text"]
    assert replay(dead.directory, image, "--until", "latest")["cut"]["text"] == end_text
    refused = replay(dead.directory, image, "--until", "2999-01-01T00:00:00Z", exit_code=13)
    assert "damaged" in refused["message"]


def test_an_unreadable_block_is_zeroes_and_listed(dead: Dead, tmp_path: Path) -> None:
    """A flipped byte below the checkpoint: found when its block is read, and only that one is lost."""
    held = dead.expected["one"]
    block = next(at for at in range(0, SIZE, 4096) if any(held[at : at + 4096]))
    for path in dead.segments():
        data = bytearray(path.read_bytes())
        if (place := data.find(held[block : block + 4096])) >= 0:
            data[place + 1000] ^= 1
            path.write_bytes(data)
    image = tmp_path / "v.img"
    done = replay(dead.directory, image, "--until", "one", exit_code=3)
    assert done["lost"] == [{"offset": block, "bytes": 4096}]
    assert image.read_bytes() == held[:block] + bytes(4096) + held[block + 4096 :]


def test_an_image_goes_to_standard_output(dead: Dead, tmp_path: Path) -> None:
    """`--output -` is a stream, as for `volume export`, and no file of that name."""
    words = [*farshore_command(), "journal", "replay", str(dead.directory), "--output", "-"]
    environment = os.environ | {"HOME": str(tmp_path), "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}

    def run(*more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*words, *more], capture_output=True, cwd=tmp_path, env=environment, timeout=120, check=False
        )

    done = run("--until", "one")
    assert done.returncode == 0, done.stderr
    assert done.stdout == dead.expected["one"]
    assert b"digest xxh3:" in done.stderr
    assert run("--json").returncode == 2
    assert run("--format", "qcow2").returncode == 2
    assert not (tmp_path / "-").exists()


def test_the_journal_is_shown(dead: Dead) -> None:
    """Which cuts there are, before one is chosen."""
    before = fingerprint(dead.directory)
    words = [*farshore_command(), "journal", "show", "g", "--dir", str(dead.directory), "--json"]
    data = json.loads(succeed(*words))["data"]
    assert [each["label"] for each in data["backups"]] == list(LABELS)
    assert data["frames"][-1]["kinds"] == {"write": data["frames"][-1]["events"]}
    since = data["backups"][2]["cut"]["text"]
    (first,) = json.loads(succeed(*words, "--since", since, "--limit", "1"))["data"]["frames"]
    assert first["kinds"] == {"mark": 1}
    assert fingerprint(dead.directory) == before


def test_what_is_not_there(dead: Dead, tmp_path: Path) -> None:
    image = tmp_path / "v.img"
    replay(dead.directory, image, "--until", "four", exit_code=10)
    replay(dead.directory, image, "--volume", "h/v", exit_code=10)
    replay(dead.directory, image, "--volume", "g/w", exit_code=10)
    replay(tmp_path, image, exit_code=10)
    assert not image.exists()
