#!/usr/bin/env bash
# A class of your own: from one mesh and a folder of photos to a model, and pictures of what it sees.
#
#   bash own_class.sh MESH PHOTOS NEW_PHOTOS [FOLDER]
#
# MESH        any mesh of the class that trimesh reads: obj, ply, off, stl, glb, gltf
# PHOTOS      a folder of photos to learn from, one object in each; 100 or more
# NEW_PHOTOS  photos to try the model on
# FOLDER      where everything goes (default: own_class)
#
# Masks are found in a folder masks/ beside each folder of photos, with the same file stems (horse01.jpg: masks/horse01.png),
# or in the alpha channel. Photos that have none get one from `--masker grabcut`, which does for an object in the middle of a
# plain scene and no more: look at the maps before you believe them.
#
# Every line writes a file that the next one reads. A line that was interrupted goes on where it stopped when the script is
# started again; what is finished is skipped here, for a finished file is never overwritten unasked.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '4,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

mesh=$(realpath "$1") photos=$(realpath "$2") new=$(realpath "$3")
mkdir -p "${4:-own_class}"
cd "${4:-own_class}"

# 1. The template. Look at sides.png: it should stand upright and look out of its first picture. If it does not, say where its
#    axes point, for example --up +z --front -y. More vertices resolve more, and cost more memory in training.
[ -e template.h5 ] || shic template prep "$mesh" --vertices 5000 --picture sides.png

# 2. Pseudo-ground truth: every object pixel of every photo, matched to rendered views of the template (no training).
[ -e pgt.h5 ] || shic pseudo-gt "$photos" -o pgt.h5 --masker auto

# 3. What did it match? One photo and one of its pixels; brighter is more alike. See pgt.heatmap.png.
#    shic pseudo-gt "$photos" -o pgt.h5 --heatmap NAME.jpg:120,80

# 4. Synthetic pictures with exact labels, in random poses: without a foundation model the map learns most of what it knows
#    from them. Photos without the object can be their backgrounds: --backgrounds FOLDER. See synth.png.
[ -e synth.h5 ] || shic synth --contact-sheet synth.png

# 5. Training. model.losses.png shows the course of each loss; all weights are options (shic train --help).
[ -e model.safetensors ] || shic train pgt.h5 synth.h5 -o model.safetensors

# 6. The new photos: new.maps.h5, and in new/ a colour picture and a textured picture of each.
[ -e new.maps.h5 ] || shic predict "$new" -o new.maps.h5 --remap checker --masker auto

# 7. Any other texture on the same maps, without the model being run again.
[ -e textured ] || shic remap new.maps.h5 --texture grid -o textured/

# 8. If you have annotations (DensePose points on the vertices of MESH), how far off is it? 228 is the largest distance.
#    shic eval geodesic new.maps.h5 --annotations annotations.json
shic info model.safetensors
