"""Every decoder under arbitrary, mutated and structured bytes: a value or its own typed error, nothing else.

The targets, and what each of them holds, are in `tests.fuzz.targets`; `make fuzz` goes on for longer, guided
by coverage. Here Hypothesis does it, and all that was ever found is tried again.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.limits import BASE_PART_BYTES_MAX, MESSAGE_HEADER_BYTES_MAX
from tests.fuzz import targets
from tests.fuzz.every import EVERY
from tests.fuzz.targets import Finding, Target

FINDINGS = Path(targets.__file__).parent / "findings"
KINDS = [*range(33), 40, 41, 42, 43, 44, 45, 50, 51, 52, 53, 54]
BIG = [1 << 32, 1 << 38, (1 << 62) - 1, 1 << 62, (1 << 64) - 1]
numbers = st.sampled_from([-(1 << 63), -4096, -1, 0, 1, 2, 127, 128, 255, 4096, *BIG])
NAMES = ["", "g", "vm1", "0" * 16, "../x", "/a", "a" * 64, "\U0001f600" * 200, "paired", "fold"]
words = st.sampled_from(NAMES)
scalars = st.one_of(
    numbers,
    words,
    st.booleans(),
    st.none(),
    st.floats(),
    st.binary(max_size=17),
    st.just(bytes(16)),
    st.text(max_size=5),
)
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=6), max_leaves=12)
rows = st.builds(
    lambda kind, fields: msgspec.msgpack.encode([kind, *fields]),
    st.sampled_from(KINDS) | words,
    st.lists(nested, max_size=10),
)

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A good input with a few bytes changed, taken out, put in, or a part of another one in their place."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 4)))
        other = draw(st.sampled_from(seeds))
        data[at:end] = draw(st.binary(max_size=4) | st.just(other[at : at + 8]))
    return bytes(data)


@pytest.fixture(params=EVERY.values(), ids=lambda target: target.name)
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    return found


def test_any_bytes(target: Target) -> None:
    @SETTINGS
    @given(st.binary(max_size=300))
    def run(data: bytes) -> None:
        target.run(data)

    run()


def test_mutated_inputs(target: Target) -> None:
    assert target.seeds, "a target without a good input tests little"

    @SETTINGS
    @given(mutated(target.seeds))
    def run(data: bytes) -> None:
        target.run(data)

    for seed in target.seeds:
        target.run(seed)
    run()


def test_structured_rows(target: Target) -> None:
    @SETTINGS
    @given(rows)
    def run(data: bytes) -> None:
        target.run(data)

    run()


def test_what_was_found_before(target: Target) -> None:
    for path in sorted((FINDINGS / target.name).glob("*")):
        target.run(path.read_bytes())


def test_a_target_that_breaks_its_word_is_seen() -> None:
    """The checks of the targets can fail."""
    with pytest.raises(Finding):
        targets.require(False, "planted")
    with pytest.raises(ZeroDivisionError), targets.only(ValueError):
        raise ZeroDivisionError


HOSTILE = {
    "nested empty arrays": b"\x91" * 60_000 + b"\x90",
    "many empty arrays": b"\xdc\xea\x60" + b"\x90" * 60_000,
    "an array that promises four billion": b"\xdd\xff\xff\xff\xff",
    "in a lineage": b"\x99\x01\x05\x01\xa1g\xb0" + b"0" * 16 + b"\xa1s\xdd\xff\xff\xff\xff",
    "in blocks": b"\x99\x2b\x07\x01\xa1g\xb0" + b"0" * 16 + b"\x03\x01\x05\xdd\xff\xff\xff\xff",
    "in a mark": b"\x98\x14\x01\xa1l\x00\x00\xdd\xff\xff\xff\xff",
    "bytes that promise four billion": b"\x92\x02\xc6\xff\xff\xff\xff",
    "a text that promises four billion": b"\x92\x02\xdb\xff\xff\xff\xff",
    "a map that promises four billion": b"\xdf\xff\xff\xff\xff",
    "a lineage of 60,000": b"\x99\x01\x05\x01\xa1g\xb0" + b"0" * 16 + b"\xa1s\xdc\xea\x60" + b"\x90" * 60_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_allocated_by_what_is_only_claimed(name: str, target: Target) -> None:
    data = HOSTILE[name]
    assert len(data) <= MESSAGE_HEADER_BYTES_MAX
    target.run(b"\xc0")  # what is made once
    tracemalloc.start()
    try:
        target.run(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * BASE_PART_BYTES_MAX, f"{peak} bytes for {len(data)}"
