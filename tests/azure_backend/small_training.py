"""In place of fine_tune.py where a training is to take a second: the same arguments, checkpoints, outputs.

python small_training.py --overrides '{"steps": 3, "pause": 0.1}' --run-dir RUN --model_output_dir MODEL ...
"""

import argparse
import json
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("recipe", "model", "overrides", "train-file", "eval-file", "run-dir", "model_output_dir"):
    parser.add_argument(f"--{name}")
told = parser.parse_args()
wanted = {"steps": 3, "pause": 0.1, "with_model": True} | json.loads(told.overrides)
run, model = Path(told.run_dir), Path(told.model_output_dir)
run.mkdir(parents=True, exist_ok=True)
done = sorted(int(path.name.partition("-")[2]) for path in run.glob("checkpoint-*"))
first = done[-1] if done else 0
print(f"begins at {first}, {len(Path(told.train_file).read_text().splitlines())} rows", flush=True)
for step in range(first + 1, wanted["steps"] + 1):
    (run / f"checkpoint-{step}").mkdir()
    (run / f"checkpoint-{step}" / "state").write_text(str(step))
    print(f"step {step}", flush=True)
    time.sleep(wanted["pause"])
for name in ("report.html", "loss_curve.png"):
    (run / name).write_text("of the small training")
(run / "metrics.json").write_text(json.dumps({"after": {"exact_match": 1.0}}))
if wanted["with_model"]:
    model.mkdir(parents=True, exist_ok=True)
    (model / "MLmodel").write_text(
        f"run_id: {os.environ['MLFLOW_RUN_ID']}\nflavors:\n  python_function:\n    loader_module: none\n"
    )
(run / "run.json").write_text(json.dumps({"state": "finished", "code": os.environ.get("PHIKIT_CODE_VERSION")}))
print("done", flush=True)
