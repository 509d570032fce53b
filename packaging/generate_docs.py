"""Write what docs/ has of the code: errors.md, json-api.md, pair-states.md, the records in journal-format.md.

    python packaging/generate_docs.py            write them
    python packaging/generate_docs.py --check    write nothing; end with 1 if a page is stale

Run from the project's environment. tests/tidy/test_docs_generated.py holds the pages to their code.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from console.kinds import ERROR, KINDS, REFERENCE, reply_types, schemas  # noqa: E402
from engine.peering.pair_states import (  # noqa: E402
    FIELD_CODE_SECONDARY_SPLIT,
    FIELD_CODES,
    TRANSITIONS,
    PairState,
    PairVerb,
    next_state,
)
from protocol import errors  # noqa: E402
from protocol.commands.base import Reply  # noqa: E402
from protocol.errors import ExitCode, FarshoreError, WrongState  # noqa: E402
from protocol.events import EventKind, Record  # noqa: E402
from protocol.positions import Cut  # noqa: E402

ERRORS_PAGE = """\
<!-- Written by packaging/generate_docs.py from protocol/errors.py; change that, then run the script. -->
# Errors and exit codes

Every error names the object, the journal position where there is one, and what to try next. For people it
goes to standard error:

```
error: there is no volume vm1/nope here
object: vm1/nope
next: `farshore volume list` shows those that exist
```

With `--json` it is a line on standard output, `{{"api":1,"kind":"error","site":"a","errors":[{{…}}]}}`
([json-api.md](json-api.md)); each error has `code`, `exit_code`, `message`, `object`, `position` and `next`.
`code` and `exit_code` are stable, the words of `message` and `next` are not.

## Exit codes of `farshore`

{exits}
## Codes

{codes}
`farshore verify` ends with 24 when it finds damage; the damage is then its result and not an error.

What NBD clients are told is in [wire-format.md](wire-format.md#errors-that-hosts-get).
"""

JSON_PAGE = """\
<!-- Written by packaging/generate_docs.py from console/kinds.py and its types; change those, then run it. -->
# JSON for scripts

With `--json` a command prints JSON on standard output, one object a line:

```
{{"api":1,"kind":"peer.add","site":"a","data":{{"peer":"b","endpoint":null,"fingerprint":"…","added":true}}}}
```

| field | what it is |
| --- | --- |
| `api` | 1 |
| `kind` | what the line is; it says which fields `data` has |
| `site` | the site that was asked, by its name here; empty where none was |
| `data` | the reply |

A kind is called as the command that prints it, but for these: `progress` comes any number of times before
the result, `error` has `errors` in place of `data`. `event` is a line of `events --follow`, `job` is what
`job show`, `job watch` and `job cancel` print, `mount.list` is `mount --list`. `restore.plan` and
`restore.files.plan` are what `--dry-run` says, `takeover.plan` what `--plan` does; `schema.list` is `schema`
alone. `cat` and `restore files --to -` are refused with `--json`; `site run` prints the daemon's log.

`farshore schema KIND` prints the JSON Schema of a whole line, `farshore schema` all kinds.

## What scripts can rely on

- Kinds and fields keep their names, and fields their types. `tests/golden/replies.json` holds every one.
- New fields, kinds and words of a set may come with any version: ignore what you do not know.
- A field is always there, unless its type says "or left out". A figure that is not known is null.
- The order of fields means nothing. Texts for people, such as `message`, `reason`, `said` and `statement`,
  may be worded anew; exit codes and the `code` of an error stay ([errors.md](errors.md)).
- Ids and timelines are hex strings, times RFC 3339 in UTC. Sizes are in bytes and spans in seconds, unless
  the name ends in `_ms`.
- `api` becomes 2 if this cannot be kept.

## Kinds

{kinds}
## Parts

What several kinds have, or what others hold.

{parts}"""

PAIR_STATES_PAGE = """\
<!-- By packaging/generate_docs.py from engine/peering/pair_states.py; change that, then run the script. -->
# Pair states

A pair is one group at two sites. The site that writes the group keeps the state; a verb whose cell in the
table is empty is refused with exit code 13 and changes nothing. The other site shows what the last heartbeat
said, or `suspended by error` once it has heard nothing for `HEARTBEAT_TIMEOUT_S` (protocol/limits.py).

## States

{states}
At the site that follows, `split` has the code {secondary_split}; a last heartbeat tells it.

## Verbs

{verbs}
## Table

{matrix}
The state lives in memory. What survives a restart is whether the pair is split or taken over; any other pair
begins again with **create**. `diverged` ends by `pair resync --source local|remote`, or by itself if the
peer's end is found in this journal after all.

Roles are another matter: `farshore switchover`, `takeover` and `failback` (docs/operations.md) say which site
writes. A takeover begins with `taken over`, a hand-over with **create**.
"""

EXIT_MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed, for a reason that has no code of its own",
    ExitCode.USAGE: "the command line, a name or a file of settings does not make sense",
    ExitCode.PARTIAL: "done in part: some groups of `takeover --from`, some files of `restore files`",
    ExitCode.NOT_FOUND: "what was named does not exist",
    ExitCode.BUSY: "something else holds it",
    ExitCode.NOT_ALLOWED: "the caller, peer or machine may not do this",
    ExitCode.WRONG_STATE: "not possible in the state that the object is in",
    ExitCode.UNREACHABLE: "no daemon answers",
    ExitCode.UNSAFE: "refused because it could lose data, or was not confirmed",
    ExitCode.DIVERGED: "both sites wrote after the same position",
    ExitCode.TIMEOUT: "what was waited for did not happen in time",
    ExitCode.TRIMMED: "the position cannot be read here (any more)",
    ExitCode.MISMATCH: "two things that must be equal are not, or stored bytes are damaged",
    ExitCode.INTERRUPTED: "Ctrl-C",
}

STATE_MEANINGS: dict[PairState, str] = {
    PairState.SIMPLEX: "no pair, or one that has not begun",
    PairState.COPYING: "the peer is behind what was written here when the session began",
    PairState.PAIRED: "the peer has caught up since; new frames are shipped as they are written",
    PairState.SPLIT: "paused by an operator; kept over restarts",
    PairState.SUSPENDED: "the peer is lost, or refuses; tried again by itself",
    PairState.FILLING: "the peer is lost, and what it lacks fills the journal; near its end it lets go",
    PairState.TAKEN_OVER: "written here since a takeover; the other site has not come back yet",
    PairState.DIVERGED: "the peer holds what is not in this journal; nothing is moved",
}

VERB_MEANINGS: dict[PairVerb, str] = {
    PairVerb.CREATE: "`farshore pair create`; also the daemon's start, for a pair that is not split",
    PairVerb.CAUGHT_UP: "the peer follows, and has everything that was written here when the session began",
    PairVerb.PEER_LOST: "the connection was lost, or silent for longer than `HEARTBEAT_TIMEOUT_S`",
    PairVerb.PEER_BACK: "the peer answered, and its end is in this journal with the same digest",
    PairVerb.FILL: "the journal enters a stage of pressure while the peer is away",
    PairVerb.RELIEVE: "the journal has room again",
    PairVerb.FAIL: "the peer refused, sent what it may not, or this journal cannot be read",
    PairVerb.DIVERGE: "the peer's end is not in this journal",
    PairVerb.SPLIT: "`farshore pair split`",
    PairVerb.RESYNC: "`farshore pair resync`",
}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in cells] for cells in lines)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in escaped) + "\n"


def first_sentence(cls: type) -> str:
    """A docstring's first paragraph on one line, without its last full stop."""
    text = (inspect.getdoc(cls) or "").split("\n\n", 1)[0]
    return " ".join(text.split()).removesuffix(".")


def error_classes() -> list[type[FarshoreError]]:
    """Every error for operators in protocol.errors, by exit code and word."""
    found = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, FarshoreError) and each is not FarshoreError
    ]
    return sorted(found, key=lambda each: (each.exit_code, each.code))


def errors_page() -> str:
    """docs/errors.md."""
    exits = [(str(int(code)), EXIT_MEANINGS[code]) for code in ExitCode]
    codes = [(f"`{each.code}`", str(int(each.exit_code)), first_sentence(each)) for each in error_classes()]
    codes.insert(0, ("`failed`", str(int(ExitCode.FAILED)), "Anything else; the message says what"))
    codes.insert(1, ("`internal`", str(int(ExitCode.FAILED)), "A bug: the exception is in the daemon's log"))
    return ERRORS_PAGE.format(
        exits=table(("exit code", "meaning"), exits), codes=table(("code", "exit code", "when"), codes)
    )


def allowed(state: PairState, verb: PairVerb) -> str:
    """The cell of a state and a verb: where it leads, or nothing."""
    found = TRANSITIONS.get((state, verb))
    return "" if found is None else found.value


def hint(state: PairState) -> str:
    """What a refusal in this state says to try."""
    refused = next(verb for verb in PairVerb if (state, verb) not in TRANSITIONS)
    try:
        next_state(state, refused, "GROUP")
    except WrongState as error:
        return error.next_step
    raise RuntimeError(f"{state} refuses nothing")


def pair_states_page() -> str:
    """docs/pair-states.md."""
    states = [
        (f"**{state.value}**", FIELD_CODES[state], STATE_MEANINGS[state], hint(state)) for state in PairState
    ]
    verbs = [(f"**{verb.value}**", VERB_MEANINGS[verb]) for verb in PairVerb]
    matrix = [(f"**{state.value}**", *(allowed(state, verb) for verb in PairVerb)) for state in PairState]
    return PAIR_STATES_PAGE.format(
        states=table(("state", "code", "means", "what a refusal points to"), states),
        verbs=table(("verb", "when"), verbs),
        matrix=table(("from \\ verb", *(verb.value for verb in PairVerb)), matrix),
        secondary_split=FIELD_CODE_SECONDARY_SPLIT,
    )


def journal_page() -> str:
    """docs/journal-format.md with its rows of records."""
    kinds = {EventKind(each.__struct_config__.tag): each for each in get_args(Record)}
    records = "".join(
        f"| {kind} | `[{kind}, {', '.join(fields_text(each))}]` | {kind.name}: {first_sentence(each)} |\n"
        for kind, each in sorted(kinds.items())
    )
    page = (ROOT / "docs" / "journal-format.md").read_text(encoding="utf-8")
    return re.sub(r"(?:^\| (?:1[6-9]|[2-9]\d) \| `\[.*\n)+", lambda _: records, page, flags=re.MULTILINE)


def fields_text(record: type[Record]) -> Iterator[str]:
    """What follows the kind in a row: a cut is two numbers."""
    for name, hint in get_type_hints(record).items():
        if hint in (Cut, Cut | None):
            yield from (f"{name}_timeline", f"{name}_position")
        else:
            yield f"[{name}, …]" if get_origin(hint) is tuple else name


def json_page() -> str:
    """docs/json-api.md."""
    replies = {kind: [each.__name__ for each in reply_types(kind)] for kind in sorted(KINDS)}
    classes = {each.__name__: each for each in subclasses(Reply)}
    printed = {name for names in replies.values() for name in names}
    _, definitions = schemas([each for name, each in classes.items() if name in printed])
    # A base whose fields another type has too is a part like those that are held.
    bases = {name: base_of(classes[name]) for name in definitions if name in classes}
    _, more = schemas([each for each in bases.values() if each is not None])
    definitions |= more
    uses = Counter(name for names in replies.values() for name in names)
    uses.update(base.__name__ for base in bases.values() if base is not None)
    uses.update(name for each in definitions.values() for name in references(each))
    alone = {name for name in printed if uses[name] == 1}

    def told(name: str) -> str:
        return struct_text(definitions[name], classes.get(name))

    def section(kind: str) -> str:
        texts = [told(each) if each in alone else f"{link(each)}\n" for each in replies[kind]]
        if kind == ERROR:
            texts = [f"`errors`: array of {text}" for text in texts]
        return f"### {kind}\n\n" + "\nor\n\n".join(texts)

    return JSON_PAGE.format(
        kinds="\n".join(section(kind) for kind in replies),
        parts="\n".join(f"### {name}\n\n{told(name)}" for name in sorted(definitions) if name not in alone),
    )


def subclasses(cls: type[Reply]) -> Iterator[type[Reply]]:
    """Every type below a class that is imported, at any depth."""
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)


def base_of(cls: type[Reply]) -> type[Reply] | None:
    """The reply whose fields this one has too."""
    base = cls.__bases__[0]
    return base if issubclass(base, Reply) and base is not Reply else None


def references(definition: Any) -> Iterator[str]:
    """Names of the types that a type's fields have."""
    if isinstance(definition, dict):
        if "$ref" in definition:
            yield definition["$ref"].removeprefix(REFERENCE)
        definition = list(definition.values())
    if isinstance(definition, list):
        for each in definition:
            yield from references(each)


def struct_text(definition: Mapping[str, Any], cls: type[Reply] | None) -> str:
    """A type's docstring, and the table of its fields; of those that it has from a base a link only."""
    base = None if cls is None else base_of(cls)
    inherited = {} if base is None else definition_of(base)["properties"]
    own = {name: each for name, each in definition["properties"].items() if inherited.get(name) != each}
    rows = []
    for name, each in own.items():
        absent = "" if name in definition["required"] else ", or left out"
        rows.append((f"`{name}`", type_text(each) + absent))
    text = definition["description"] + "\n"
    if base is not None:
        text += f"\nAll of {link(base.__name__)}{', and:' if rows else '.'}\n"
    return text + ("\n" + table(("field", "type"), rows) if rows else "")


def definition_of(cls: type[Reply]) -> Mapping[str, Any]:
    """The JSON Schema of one type."""
    _, definitions = schemas([cls])
    found: Mapping[str, Any] = definitions[cls.__name__]
    return found


def link(name: str) -> str:
    """To the heading of a type."""
    return f"[{name}](#{name.lower()})"


def type_text(schema: Mapping[str, Any]) -> str:
    """A field's type in words."""
    if "$ref" in schema:
        return link(schema["$ref"].removeprefix(REFERENCE))
    if "anyOf" in schema:
        return " or ".join(type_text(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f'`"{each}"`' for each in schema["enum"])
    if "prefixItems" in schema:
        return f"array of {', '.join(type_text(each) for each in schema['prefixItems'])}"
    if schema["type"] == "array":
        return f"array of {type_text(schema['items'])}"
    if "additionalProperties" in schema:
        return f"object of {type_text(schema['additionalProperties'])}"
    return str(schema["type"])


PAGES: dict[str, Callable[[], str]] = {
    "docs/errors.md": errors_page,
    "docs/journal-format.md": journal_page,
    "docs/json-api.md": json_page,
    "docs/pair-states.md": pair_states_page,
}


def stale_pages() -> list[str]:
    """Pages whose file is not what would be written."""
    return [
        path
        for path, page in PAGES.items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != page()
    ]


def main(words: Sequence[str] | None = None) -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(prog="python packaging/generate_docs.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if a page is stale")
    if parser.parse_args(words).check:
        stale = stale_pages()
        for path in stale:
            print(f"{path} is stale: run python packaging/generate_docs.py", file=sys.stderr)
        return 1 if stale else 0
    for path, page in PAGES.items():
        (ROOT / path).write_text(page(), encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
