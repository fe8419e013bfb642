#!/usr/bin/env bash
# In the runtime image, before `docker compose up` serves anything: see to it that there is a model.  first_run.sh
#
# A finished run in runs/ is enough. Where there is none, as on a fresh clone, the tiny model is fine-tuned on the
# shipped sample, once, into the volume `first-run` (runs/ belongs to whoever cloned it, and not to this container).
set -euo pipefail

readonly MINE="/phikit/runs" FIRST="/phikit/first-run"
# (the link runs/latest is there from a run's beginning, its model from the end)
for runs in "$MINE" "$FIRST"; do
    if [ -f "$runs/latest/model/MLmodel" ]; then
        echo "first run: $runs/latest has a model"
        exit 0
    fi
done
if [ ! -w "$FIRST" ]; then
    echo "error: $FIRST cannot be written to by user $(id -u); remove it, docker compose down --volumes, or train with" \
        "make local-train" >&2
    exit 1
fi
echo "first run: no finished run in runs/ yet, so the tiny model learns the sample (under a minute)"
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
cd /phikit/training
python prepare_data.py prepare sample --out "$FIRST/data"
python fine_tune.py --recipe tiny_cpu --train-file "$FIRST/data/train_data.jsonl" \
    --eval-file "$FIRST/data/test_data.jsonl" --run-dir "$FIRST/first" --model_output_dir "$FIRST/first/model"
ln -sfn first "$FIRST/latest"
