"""The installed layout: the top-level packages of the repository go inside of `farshore`, so that no name of
theirs can meet another distribution's (docs/decisions/0021). All else is in pyproject.toml."""

from setuptools import find_packages, setup

INSIDE = ("protocol", "engine", "site_primary", "site_secondary", "daemon", "console")

found = find_packages(include=[pattern for name in INSIDE for pattern in (name, f"{name}.*")])
setup(
    packages=["farshore", *(f"farshore.{name}" for name in found)],
    package_dir={f"farshore.{name}": name for name in INSIDE},
)
