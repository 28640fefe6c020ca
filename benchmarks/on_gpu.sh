#!/usr/bin/env bash
# Where a GPU is at hand: the tests that need one, and how fast steps and log p(x) are on it, in less than ten minutes.
#
#     pip install -e '.[test,benchmark]' && bash benchmarks/on_gpu.sh FOLDER
#
# Logs and numbers are in the folder. A part that fails does not stop the others; the last line names those that failed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?usage: on_gpu.sh FOLDER}")
device=${DEVICE:-cuda} # DEVICE=cpu tries the script where there is no GPU
mkdir -p "$out"
failed=()

part() { # name, seconds, command
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    echo "== $name"
    timeout "$seconds" "$@" >"$out/$name.log" 2>&1 || failed+=("$name")
    tail -n 25 "$out/$name.log"
    echo "== $name: $((SECONDS - start)) s"
}

nvidia-smi >"$out/gpu.txt" 2>&1
part tests 150 python -m pytest -q -n 4 tests/test_on_gpu.py tests/test_parts.py tests/test_saving.py tests/test_svi.py
part steps 240 python benchmarks/step_time.py --device "$device" --models mlp conv flow --batch 128 2048 --rounds 2 \
    --seconds 0.5 --json "$out/step_time.json"
part evidence 90 python benchmarks/evidence.py --device "$device" --rounds 2 --out "$out/evidence.json"
part scaling 60 python benchmarks/scaling.py --device "$device" --json "$out/scaling.json"

echo "failed: ${failed[*]:-none}"
((${#failed[@]} == 0))
