"""Every target, by name, whichever file it is in."""

from __future__ import annotations

from tests.fuzz.targets import TARGETS
from tests.fuzz.tls_targets import TLS_TARGETS

EVERY = {**TARGETS, **TLS_TARGETS}
