"""Each name of ours is our package, wherever it lies and whatever else has the name; no other name is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from farshore import launch
from farshore.children import child_words

# Says which packages it got, and its words.
MODULE = """import sys
import daemon, farshore, protocol
assert __name__ == "__main__" and sys.modules["__main__"].__dict__ is globals()
for found in (daemon, farshore, protocol):
    print(found.__file__)
print(*sys.argv[1:])
"""


def put_package(parent: Path, name: str, text: str = "") -> None:
    (parent / name).mkdir(parents=True)
    (parent / name / "__init__.py").write_text(text)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A directory that has a package of each name."""
    for name in ("farshore", *launch.PACKAGES):
        put_package(tmp_path / "foreign", name, "raise ImportError('foreign')")
    return tmp_path / "foreign"


def own(parent: Path, *, inside: bool) -> Path:
    """Packages of ours in that layout; gives the launcher's path."""
    home = parent / "farshore"
    put_package(parent, "farshore")
    for name in launch.PACKAGES:
        put_package(home if inside else parent, name)
    (home if inside else parent).joinpath("engine", "child.py").write_text(MODULE)
    return Path(shutil.copy(launch.__file__, home / "launch.py"))


def run(launcher: Path, foreign: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """With foreign packages in the current directory and first on the path."""
    command = child_words(*words)
    command[command.index(launch.__file__)] = str(launcher)
    environment = os.environ | {"PYTHONPATH": str(foreign)}
    return subprocess.run(
        command, cwd=foreign, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("inside", [True, False], ids=["installed", "checkout"])
def test_a_child_has_our_packages(tmp_path: Path, foreign: Path, inside: bool) -> None:
    launcher = own(tmp_path / "own", inside=inside)
    done = run(launcher, foreign, "engine.child", "one", "-m", "two words")
    assert done.returncode == 0, done.stderr
    home = launcher.parent if inside else launcher.parent.parent
    daemon, farshore, protocol, words = done.stdout.splitlines()
    assert daemon == str(home / "daemon" / "__init__.py")
    assert protocol == str(home / "protocol" / "__init__.py")
    assert farshore == str(launcher.parent / "__init__.py")
    assert words == "one -m two words"


def test_only_those_names_are_looked_up_there(tmp_path: Path, foreign: Path) -> None:
    """`json` and whatever else lies beside our packages is no package of ours."""
    launcher = own(tmp_path, inside=False)
    put_package(tmp_path, "json", "raise ImportError('not the real one')")
    put_package(tmp_path, "beside")
    text = "import json, importlib.util\nprint(importlib.util.find_spec('beside'))\n"
    (tmp_path / "engine" / "child.py").write_text(text)
    done = run(launcher, foreign, "engine.child")
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_a_childs_words() -> None:
    assert child_words("daemon", "run", "/x") == [
        sys.executable, "-P", launch.__file__, "daemon", "run", "/x",
    ]  # fmt: skip
    assert child_words("daemon", bytecode=False) == [
        sys.executable, "-P", "-B", launch.__file__, "daemon",
    ]  # fmt: skip


def test_ctrl_c_while_the_command_is_loaded_ends_it_without_a_traceback(tmp_path: Path) -> None:
    own(tmp_path, inside=False)
    text = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "console" / "cli.py").write_text(text)
    words = [sys.executable, "-P", "-c", "import sys; from farshore.launch import main; sys.exit(main())"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")
