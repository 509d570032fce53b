"""A disk that boots in an instant and says words on its serial console."""

from __future__ import annotations

from pathlib import Path


def boot_disk(path: Path, words: bytes) -> None:
    """A disk whose first sector writes words to the first serial port, for a BIOS (8086 code, loaded at
    7C00)."""
    code = bytes.fromhex(
        "fa 31c0 8ed8"  # cli; ds = 0
        "be227c"  # si = the words
        "ac 84c0 7412"  # next: al = [si++]; none left: halt
        "88c4 bafd03"  # ah = al; dx = line status
        "ec a820 74fb"  # until it can take one
        "baf803 88e0 ee"  # out al
        "ebe9"  # jmp next
        "f4 ebfd"  # halt: hlt; jmp halt
    )
    sector = (code + words + b"\0").ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes(sector.ljust(1 << 20, b"\0"))
