#!/usr/bin/env bash
# ./merge.sh CONFIG [PTH]: the last checkpoint of the work dir (or PTH) -> adapter -> merged model -> proof.
# What follows goes to `convert pth_to_hf`: ./merge.sh CONFIG "" --cfg-options lora_r=8
set -euo pipefail
config=${1:?usage: ./merge.sh CONFIG [PTH]}
work=${WORK_DIR:-work_dirs/$(basename "$config" .py)}
run=$(command -v xtuner || echo "$(dirname "$0")/.venv/bin/xtuner")
"$run" convert pth_to_hf "$config" "${2:-$work}" "$work/hf" "${@:3}"
[ -f "$work/hf/adapter_config.json" ] || { echo "A fully tuned model needs no merge: $work/hf"; exit 0; }
base=$(sed -n 's/^  "base_model_name_or_path": "\(.*\)",$/\1/p' "$work/hf/adapter_config.json")
"$run" convert merge "$base" "$work/hf" "$work/merged"
"$run" verify-merge "$base" "$work/hf" "$work/merged" --output "$work/proof.json"
