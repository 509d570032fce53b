#!/usr/bin/env bash
# Build farshore_VERSION_ARCH.deb: the wheel and what it needs in a virtual environment of its own,
# /usr/lib/farshore, with the units, man pages and completions. Needs dpkg-deb and python3-venv, and pip's index.
# usage: make-deb.sh PYTHON-OF-THE-CHECKOUT OUTPUT-DIRECTORY
set -euo pipefail
checkout_python=$(realpath -s "$1")
mkdir -p "$2"
output=$(realpath "$2")
cd "$(dirname "$0")/.."

# Debian's own, as another one would not be there where the package is installed.
python=/usr/bin/python3
place=usr/lib/farshore
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
series=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$($python -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
architecture=$(dpkg --print-architecture)

# From a copy: setuptools leaves build/ and *.egg-info where it builds.
mkdir -p "$work/source" "$root"
tar -c --exclude=.git --exclude=.venv --exclude='*.egg-info' --exclude=build --exclude=__pycache__ . |
    tar -x -C "$work/source"
"$checkout_python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$work" "$work/source" </dev/null
$python -m venv --without-pip "$root/$place"
"$checkout_python" -m pip --python "$root/$place/bin/python" install --quiet --disable-pip-version-check \
    --no-input --no-compile "$work"/farshore-*.whl </dev/null

# Nothing in it may name the place where it was built.
rm -f "$root/$place"/bin/[Aa]ctivate* "$root/$place"/lib/python*/site-packages/farshore-*.dist-info/direct_url.json
sed -i '/^command = /d' "$root/$place/pyvenv.cfg"
grep -rlIZ "$root" "$root/$place" | xargs -0r sed -i "s#$root/#/#g"
# Its user cannot write there, so the byte code comes along.
"$root/$place/bin/python" -m compileall -q -s "$root" -p / --invalidation-mode unchecked-hash \
    "$root/$place/lib" >/dev/null

install -d "$root/usr/bin" "$root/usr/share/doc/farshore"
for name in farshore farshore-hook; do ln -s "../lib/farshore/bin/$name" "$root/usr/bin/$name"; done
install -D -m 644 packaging/systemd/farshore@.service "$root/usr/lib/systemd/system/farshore@.service"
for unit in farshore-drill@.service farshore-drill@.timer; do
    install -D -m 644 "packaging/systemd/$unit" "$root/usr/lib/systemd/system/$unit"
done
install -d "$root/etc/farshore/checks"
install -D -m 644 packaging/systemd/farshore.sysusers "$root/usr/lib/sysusers.d/farshore.conf"
install -D -m 644 packaging/systemd/farshore.tmpfiles "$root/usr/lib/tmpfiles.d/farshore.conf"
install -m 644 docs/*.md "$root/usr/share/doc/farshore"
install -m 644 LICENSE "$root/usr/share/doc/farshore/copyright"
gzip -9n <CHANGELOG.md >"$root/usr/share/doc/farshore/changelog.gz"
"$checkout_python" packaging/generate_command_docs.py "$root"
gzip -9n "$root"/usr/share/man/man1/*.1

install -d "$root/DEBIAN"
for name in postinst prerm postrm; do install -m 755 "packaging/debian/$name" "$root/DEBIAN/$name"; done
cat >"$root/DEBIAN/control" <<CONTROL
Package: farshore
Version: $version
Architecture: $architecture
Maintainer: Farshore <farshore@localhost>
Installed-Size: $(du -k -s "$root/usr" | cut -f1)
Depends: python3 (>= $series), python3 (<< $next), libc6
Recommends: systemd, libnbd-bin, fuse3, e2fsprogs
Suggests: qemu-utils, qemu-system-x86, sqlite3
Section: admin
Priority: optional
Description: replicates, backs up and restores block volumes between two sites
 Hosts write to volumes over NBD; each write becomes an event in a journal, which
 is shipped to the other site. Any retained moment can be read, mounted or
 restored. Nothing is started by the installation.
CONTROL
find "$root" -type d -exec chmod 755 {} +
# Compressing takes a while: no half package under its name.
dpkg-deb --build --root-owner-group -Zxz "$root" "$work" >/dev/null
mv "$work/farshore_${version}_$architecture.deb" "$output"
echo "$output/farshore_${version}_$architecture.deb"
