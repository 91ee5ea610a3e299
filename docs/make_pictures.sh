#!/usr/bin/env bash
# Makes the pictures of README.md and docs/ with the program; some ten minutes on two cores.
# PHOTOGRAPHS=DIR adds the activation map of the gallery.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
picture() { # name, then the experiment and its flags
    local name=$1
    shift
    python -m experiments."$@" --out="$out/$name"
    cp "$out/$name/contact_sheet.png" "docs/$name.png"
}
picture random_samples random_samples --seeds=16
picture scene scene --scenes=volcano,desert-sand,bamboo_forest,swimming_pool-outdoor,aqueduct,rock_arch --seeds=6
picture sfw sfw --seeds=8
picture pareidolia pareidolia --alphas=1,2,4 --betas=0.5,1
picture joint synthesize --term=places:log_prob:iceberg:1 --term=nsfw:log_prob:SFW:1 --seeds=8
picture synthesize synthesize --term=places:log_prob:corn_field:1 --term=places:log_prob:coast:1 --seeds=8
picture atlas atlas --network=places --blob=conv_head --units=0:40
python docs/make_gallery.py
