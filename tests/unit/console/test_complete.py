"""What TAB offers: words of the command tree, names of the site; quick and silent without one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.console.conftest import ROOT, Ran
from tests.unit.console.stub_site import StubSite

Run = Callable[..., Ran]


def completed(farshore: Run, *words: str) -> list[str]:
    ran = farshore("complete", "--", *words)
    assert (ran.code, ran.err) == (0, "")
    return ran.out.splitlines()


def test_words_and_options_of_the_command_tree(home: Path, farshore: Run) -> None:
    assert completed(farshore, "back") == ["backup"]
    assert completed(farshore, "comp") == []
    assert completed(farshore, "pair", "cr") == ["create"]
    assert completed(farshore, "pair", "create", "g", "--m") == ["--mode"]
    assert completed(farshore, "pair", "create", "g", "--mode", "sync-") == ["sync-strict"]
    assert completed(farshore, "no", "such", "") == []


def test_names_of_the_site(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    assert completed(farshore, *site, "volume", "show", "") == ["vm1/root"]
    assert completed(farshore, *site, "pair", "show", "v") == ["vm1"]
    assert completed(farshore, *site, "ls", "vm1/root@n") == ["vm1/root@nightly"]
    assert completed(farshore, *site, "backup", "show", "vm1", "") == ["nightly"]
    assert completed(farshore, *site, "restore", "volume", "vm1/root", "--at", "n") == ["nightly"]
    assert completed(farshore, *site, "restore", "volume", "vm1/root", "--confirm", "") == []


def test_without_a_daemon_there_are_no_names(home: Path, farshore: Run) -> None:
    assert completed(farshore, "--site", str(home), "volume", "show", "") == []
    assert completed(farshore, "volume", "show", "") == []


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = ROOT / "packaging" / "generate_command_docs.py"
    spec = importlib.util.spec_from_file_location("generate_command_docs", place)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp("root")
    assert module.main([str(root)]) == 0
    return root / "usr" / "share"


def test_man_pages_are_made_of_every_command(generated: Path) -> None:
    text = (generated / "man" / "man1" / "farshore-pair.1").read_text()
    assert ".SS farshore pair create" in text
    assert "\\-\\-mode" in text
    assert "complete" not in (generated / "man" / "man1" / "farshore.1").read_text().split(".SH COMMANDS")[1]
    if shutil.which("man"):
        for page in sorted((generated / "man" / "man1").iterdir()):
            done = subprocess.run(
                ["man", "--warnings", "-l", page], capture_output=True, text=True, check=True
            )
            assert done.stderr == "", page


def test_shells_take_the_completions(generated: Path) -> None:
    for shell, path in (
        ("bash", "bash-completion/completions/farshore"),
        ("zsh", "zsh/vendor-completions/_farshore"),
        ("fish", "fish/vendor_completions.d/farshore.fish"),
    ):
        if shutil.which(shell):
            subprocess.run([shell, "-n", generated / path], check=True)
