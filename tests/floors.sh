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
for line in project["dependencies"] + project["optional-dependencies"]["test"]:
    print(given.get(name(line), line.replace(">=", "==")))
PY
cat "$venv/floors.txt"
pip install --quiet -r "$venv/floors.txt"
pip install --quiet --no-deps -e .
python -m pytest tests/surface tests/learning tests/parts tests/pipeline/test_pipeline.py
