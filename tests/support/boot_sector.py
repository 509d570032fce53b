"""A disk that says on the first serial port that it was booted, and then reads itself for ever.

Of each read of its second sector it prints `.`, or `E` if that failed. 16-bit code for a PC with a BIOS.
"""

from __future__ import annotations

GREETING = b"booted from farshore\r\n"
ORIGIN = 0x7C00

# Bytes, or a label: its place as `=label`, the way to it as `>label` (16 bits) or `<label` (8 bits).
CODE: tuple[bytes | str, ...] = (
    b"\xfc\x31\xc0\x8e\xd8\x8e\xc0\x8e\xd0\xbc\x00\x7c\xfb",  # cld; segments 0; a stack; sti
    b"\x88\x16", "=drive",  # mov [drive], dl
    b"\xbe", "=text",  # mov si, text
    "say", b"\xac\x84\xc0\x74", "<read",  # lodsb; test al, al; jz read
    b"\xe8", ">put", b"\xeb", "<say",  # call put; jmp say
    "read", b"\xbe", "=packet", b"\xb4\x42\x8a\x16", "=drive",  # mov si, packet; mov ah, 42h; mov dl, [drive]
    b"\xcd\x13\xb0.\x73\x02\xb0E",  # int 13h; mov al, '.'; jnc +2; mov al, 'E'
    b"\xe8", ">put", b"\xf4\xeb", "<read",  # call put; hlt; jmp read
    "put", b"\x88\xc4\xba\xfd\x03",  # mov ah, al; mov dx, 3fdh
    b"\xec\xa8\x20\x74\xfb",  # in al, dx; test al, 20h; jz -5
    b"\x88\xe0\xba\xf8\x03\xee\xc3",  # mov al, ah; mov dx, 3f8h; out dx, al; ret
    "drive", b"\0",
    "packet", b"\x10\0\x01\0\0\x80\0\0\x01\0\0\0\0\0\0\0",  # one sector, to 0:8000h, number 1
    "text",
)  # fmt: skip


def boot_sector() -> bytes:
    """The first 512 bytes of the disk."""
    places: dict[str, int] = {}
    at = 0
    for part in CODE:
        if isinstance(part, str) and part[0] not in "=<>":
            places[part] = at
        else:
            at += _length(part)
    code = b""
    for part in CODE:
        if isinstance(part, bytes):
            code += part
        elif part[0] == "=":
            code += (ORIGIN + places[part[1:]]).to_bytes(2, "little")
        elif part[0] in "<>":
            size = _length(part)
            code += (places[part[1:]] - len(code) - size).to_bytes(size, "little", signed=True)
    return (code + GREETING + b"\0").ljust(510, b"\0") + b"\x55\xaa"


def _length(part: bytes | str) -> int:
    if isinstance(part, bytes):
        return len(part)
    return 1 if part[0] == "<" else 2
