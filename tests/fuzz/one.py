"""Fuzz one target with atheris: `python -m tests.fuzz.one TARGET SECONDS`. Run by `tests.fuzz`.

The corpus grows in .make/fuzz/TARGET; a finding is written to tests/fuzz/findings/TARGET/ and ends the run.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["protocol", "engine.group.site_state", "daemon.config", "site_primary.nbd.tls"]
):
    from tests.fuzz.every import EVERY

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = Path(__file__).parent / "findings"
OPTIONS = (
    "-max_len=4096", "-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=1", "-verbosity=0",
)  # fmt: skip


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    name, seconds = sys.argv[1:]
    target = EVERY[name]
    corpus, found = ROOT / ".make" / "fuzz" / name, FINDINGS / name
    for directory in (corpus, found):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    words = [sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-artifact_prefix={found}/", *OPTIONS]
    atheris.Setup(words, target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
