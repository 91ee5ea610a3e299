#!/usr/bin/env bash
# Makes every picture of README.md with the program; a few minutes on two cores.
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
picture scene scene --scenes=desert-sand,iceberg,corn_field,mountain,rainforest,coast --seeds=6
picture sfw sfw --seeds=8
picture pareidolia pareidolia --alphas=2,4,8 --betas=0.5,1 --seeds=1
picture joint synthesize --term=places:log_prob:mountain:1 --term=nsfw:log_prob:SFW:1 --seeds=8
picture synthesize synthesize --term=places:fc8:corn_field:1 --term=places:fc8:iceberg:1 --seeds=8
