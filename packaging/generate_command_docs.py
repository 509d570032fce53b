"""Write man pages and shell completions, made from the command tree (console/parser.py).

    python packaging/generate_command_docs.py ROOT     writes ROOT/usr/share/man/man1/farshore.1 and the like

A page a noun, and farshore(1) with all of them. The completions ask `farshore complete` for the words.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE))

import typer  # noqa: E402

from console.parser import HELP, commands_for  # noqa: E402

BASH = """\
# bash completion of farshore
_farshore() {
    local word
    COMPREPLY=()
    # Words as typed: bash would cut them at `:`, `@` and `=`.
    local line=${COMP_LINE:0:COMP_POINT}
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    # What is replaced is what follows the last separator. `$2` has that; COMP_WORDS lacks the `@` before it.
    local begun=${words[-1]} cut=$2
    while IFS= read -r word; do
        COMPREPLY+=("${word:$((${#begun} - ${#cut}))}")
    done < <(timeout 3 farshore complete -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _farshore farshore
"""

ZSH = """\
#compdef farshore
local -a found
found=("${(@f)$(timeout 3 farshore complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
if [[ -n "${found[*]}" ]]; then
    compadd -a found
else
    _files
fi
"""

FISH = """\
# fish completion of farshore
function __farshore_complete
    set -l words (commandline -opc) (commandline -ct)
    timeout 3 farshore complete -- $words[2..-1] 2>/dev/null
end
complete -c farshore -a '(__farshore_complete)'
"""


def roff(text: str) -> str:
    """Text that troff takes for nothing else."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in ".'" else line for line in safe.splitlines())


def commands(tree: Any) -> Mapping[str, Any]:
    """The commands below one, by name; none below a verb."""
    found: Mapping[str, Any] = {
        name: each for name, each in getattr(tree, "commands", {}).items() if not each.hidden
    }
    return found


def verbs(command: Any) -> Iterator[tuple[str, Any]]:
    """Each verb of a noun, with those of a noun below it (`site cert issue`); a verb alone has no words."""
    below = commands(command)
    if not below:
        yield "", command
    for name, each in below.items():
        for words, leaf in verbs(each):
            yield f"{name} {words}".strip(), leaf


def header(title: str, summary: str) -> list[str]:
    """The beginning of a page."""
    name = title.replace(" ", "-")
    return [f'.TH {name.upper()} 1 "" farshore', ".SH NAME", f"{roff(name)} \\- {roff(summary.rstrip('.'))}"]


def summary_of(command: Any) -> str:
    """The first sentence of its help."""
    first = " ".join((command.help or "").split("\n\n", 1)[0].split())
    return first or "see below"


def usage(words: str, command: Any) -> str:
    """Its words, with its arguments."""
    arguments = [
        f" {each.metavar or each.name.upper()}"
        for each in command.params
        if each.param_type_name == "argument"
    ]
    return f".B {roff(words)}\n{roff('[OPTIONS]' + ''.join(arguments))}"


def section(words: str, command: Any) -> Iterator[str]:
    """A verb: how it is called, what it does, its options."""
    yield f".SS {roff(words)}"
    yield usage(words, command)
    yield ".PP"
    yield roff(" ".join((command.help or "").split()))
    for each in command.params:
        text = getattr(each, "help", None) or ""
        if each.param_type_name == "argument":
            if text:
                yield f".TP\n.I {roff(each.metavar or each.name.upper())}\n{roff(text)}"
        else:
            value = "" if getattr(each, "is_flag", False) else f" {each.metavar or each.name.upper()}"
            yield f".TP\n.B {roff(', '.join(each.opts) + value)}\n{roff(text) or roff('see above')}"


def pages(tree: Any) -> Iterator[tuple[str, str]]:
    """Name and text of each page."""
    listed = [*header("farshore", "replicate, back up and restore block volumes"), ".SH SYNOPSIS"]
    listed += [".B farshore\n[\\-\\-site NAME|DIR|ENDPOINT] [\\-\\-json] COMMAND", ".SH DESCRIPTION"]
    listed += [roff(HELP).replace("\n\n", "\n.PP\n"), ".SH COMMANDS"]
    for name, command in commands(tree).items():
        below = commands(command)
        title = f"farshore {name}"
        listed.append(f".TP\n.BR {roff(title.replace(' ', '-'))} (1)\n{roff(summary_of(command))}")
        page = [*header(title, summary_of(command)), ".SH SYNOPSIS"]
        each_verb = dict(verbs(command))
        page.append(
            "\n.br\n".join(usage(f"{title} {verb}".strip(), each) for verb, each in each_verb.items())
        )
        page.append(".SH COMMANDS" if below else ".SH DESCRIPTION")
        for verb, each in each_verb.items():
            page += section(f"{title} {verb}".strip(), each)
        page += [".SH SEE ALSO", ".BR farshore (1)"]
        yield f"{title.replace(' ', '-')}.1", "\n".join(page) + "\n"
    listed += [".SH EXIT STATUS", "/usr/share/doc/farshore/errors.md lists them; 0 is success."]
    yield "farshore.1", "\n".join(listed) + "\n"


def files() -> Iterator[tuple[str, str]]:
    """Path below the root, and text, of everything that is made."""
    tree = typer.main.get_command(commands_for())
    for name, text in pages(tree):
        yield f"usr/share/man/man1/{name}", text
    yield "usr/share/bash-completion/completions/farshore", BASH
    yield "usr/share/zsh/vendor-completions/_farshore", ZSH
    yield "usr/share/fish/vendor_completions.d/farshore.fish", FISH


def main(words: Sequence[str]) -> int:
    """Write all files below the root given; the exit code."""
    if len(words) != 1:
        print("usage: generate_command_docs.py ROOT", file=sys.stderr)
        return 2
    for name, text in files():
        path = Path(words[0]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
