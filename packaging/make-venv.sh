#!/usr/bin/env bash
# Make .venv with Farshore (editable) and everything its tests need, and say what pip installed.
# usage: make-venv.sh PYTHON VENV
set -euo pipefail
python=$1
venv=$2
cd "$(dirname "$0")/.."

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Farshore needs Python 3.11 or later; $python is $("$python" --version). Try: make PYTHON=python3.11 setup" >&2
    exit 1
fi
[[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
before=$("$venv/bin/python" -m pip list --format=freeze --disable-pip-version-check | sort)
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -e '.[test]' </dev/null
# Scripts at the checkout's root import our packages by their short names (docs/decisions/0021).
pwd >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/farshore-checkout.pth"
after=$("$venv/bin/python" -m pip list --format=freeze --disable-pip-version-check | sort)
new=$(comm -13 <(echo "$before") <(echo "$after") | sed 's/==/ /' | paste -sd, - | sed 's/,/, /g')
echo "python packages: installed into $venv: ${new:-nothing new}"
