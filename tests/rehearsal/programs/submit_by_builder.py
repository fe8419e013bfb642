"""Somebody's own training script and the job for it, with azure-ai-ml's builder; nothing of the kit is in here.

python submit_by_builder.py WORK_FOLDER

It prints a line of JSON at the end.
"""

import json
import sys
from pathlib import Path

from azure.ai.ml import Input, MLClient, Output, command
from azure.ai.ml.entities import AmlCompute, Environment
from azure.identity import DefaultAzureCredential

SCRIPT = """
import argparse, csv, json, os, pathlib
import mlflow

options = argparse.ArgumentParser()
options.add_argument("--table"), options.add_argument("--rate", type=float), options.add_argument("--model")
told = options.parse_args()
with open(told.table) as file:
    rows = [(float(row["x"]), float(row["y"])) for row in csv.DictReader(file)]
mlflow.start_run()
mlflow.log_param("rate", told.rate)
slope = 0.0
for epoch in range(8):
    slope -= told.rate * sum(2 * x * (slope * x - y) for x, y in rows) / len(rows)
    mlflow.log_metric("slope", slope, step=epoch)
mlflow.end_run()
folder = pathlib.Path(told.model)
folder.mkdir(parents=True, exist_ok=True)
(folder / "line.json").write_text(json.dumps({"slope": round(slope, 3)}))
pathlib.Path("outputs/summary.txt").write_text("fitted " + os.environ["TEAM"])
print("fitted a line", flush=True)
"""


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "fit.py").write_text(SCRIPT)
    (folder / "table.csv").write_text("x,y\n1,2\n2,4\n3,6\n")
    client = MLClient.from_config(DefaultAzureCredential(), path=str(folder.parent))
    client.compute.begin_create_or_update(
        AmlCompute(name="line-cluster", size="Standard_DS3_v2", max_instances=1, tier="low_priority")
    ).wait()
    fit = command(
        display_name="fit a line",
        experiment_name="lines",
        code=str(folder / "src"),
        command="python fit.py --table ${{inputs.table}} --rate ${{inputs.rate}} --model ${{outputs.model}} && ls",
        inputs={"table": Input(type="uri_file", path=str(folder / "table.csv")), "rate": 0.1},
        outputs={"model": Output(type="uri_folder", mode="rw_mount")},
        environment=Environment(image="phikit-runtime:cpu"),
        environment_variables={"TEAM": "lines"},
        compute="line-cluster",
        instance_count=1,
    )
    job = client.jobs.create_or_update(fit)
    client.jobs.stream(job.name)
    client.jobs.download(job.name, download_path=str(folder / "home"))
    client.jobs.download(job.name, download_path=str(folder / "home"), output_name="model")
    (line,) = (folder / "home").rglob("line.json")
    (summary,) = (folder / "home").rglob("summary.txt")
    print()
    print(
        json.dumps(
            {
                "name": job.name,
                "status": client.jobs.get(job.name).status,
                "slope": json.loads(line.read_text())["slope"],
                "summary": summary.read_text(),
            }
        )
    )


if __name__ == "__main__":
    main()
