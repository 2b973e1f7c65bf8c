#!/usr/bin/env bash
# Installs the lowest versions that pyproject.toml allows into a fresh environment and runs the quick tests there.
# Arguments take the place of floors, where a package index lacks one: tests/floors.sh torch==2.13.0
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
# shellcheck disable=SC1091
. "$venv/bin/activate"
python - "$@" > "$venv/floors.txt" <<'PY'
import re, sys, tomllib

def name(line):
    return re.match(r"[\w.-]+", line)[0].lower()

given = {name(line): line for line in sys.argv[1:]}
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]

def wanted(extra):
    """The packages of an extra and of the extras that it names."""
    for line in project["optional-dependencies"][extra]:
        if names := re.match(r"shic\[(.*)\]", line):
            for inner in names[1].split(","):
                yield from wanted(inner)
        else:
            yield line

for line in [*project["dependencies"], *wanted("test")]:
    print(given.get(name(line), line.replace(">=", "==", 1)))
PY
cat "$venv/floors.txt"
pip install --quiet -r "$venv/floors.txt"
pip install --quiet --no-deps -e .
python -m pytest tests/surface tests/learning tests/parts tests/pipeline/test_pipeline.py
