#!/usr/bin/env bash
# Ready models that need no weights and no photos: from meshes to the files of a release.
#
#   bash ready_models.sh FOLDER NAME=MESH...        as in: bash ready_models.sh release horse=horse.obj trex=trex.obj
#
# For each NAME it writes FOLDER/NAME.safetensors and FOLDER/NAME/, which holds the model with its card as a repository of the hub
# has them. The meshes have to be free to publish (those of Quaternius are CC0), for the model holds its template.
#
# OWNER       whose the repositories are on the hub (default: shic)
# LICENCE     the models' licence (default: cc0-1.0)
# PREP, SYNTH, TRAIN   further options of these commands, as in SYNTH="--number 500"
#
# With two CPU cores a model takes about half an hour. A run that was stopped goes on where it was.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '4p;6,12p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }

run() {  # a command with the further options in its last word
    local -a options
    read -r -a options <<< "${*: -1}"
    shic "${@:1:$#-1}" ${options[@]+"${options[@]}"}
}

mkdir -p "$1"
release=$(realpath "$1")
shift
for pair in "$@"; do
    name=${pair%%=*} mesh=$(realpath "${pair#*=}")
    mkdir -p "$release/work/$name"
    cd "$release/work/$name"
    [ -e template.h5 ] || run template prep "$mesh" "${PREP:-}"
    [ -e synth.h5 ] || run synth "${SYNTH:-}"
    [ -e model.safetensors ] || run train synth.h5 "${TRAIN:-}"
    shic models push model.safetensors "${OWNER:-shic}/$name" --licence "${LICENCE:-cc0-1.0}" --folder "$release/$name" \
        --about "Trained on synthetic pictures of the template alone, by examples/ready_models.sh."
    cp "$release/$name/model.safetensors" "$release/$name.safetensors"
    cd - > /dev/null
done
(cd "$release" && sha256sum ./*.safetensors > SHA256SUMS)
