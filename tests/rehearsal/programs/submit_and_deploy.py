"""Somebody's own way with azure-ai-ml, as such scripts are: a job, its outputs, a model, an endpoint.

python submit_and_deploy.py WORK_FOLDER IMAGE PORT

IMAGE serves what the deployment brings as serve.py. Nothing of the kit is in this script. It prints a line of JSON a
step.
"""

import json
import os
import sys
from pathlib import Path

from azure.ai.ml import Input, MLClient, Output, command
from azure.ai.ml.constants import AssetTypes
from azure.ai.ml.entities import (
    AmlCompute,
    CodeConfiguration,
    Data,
    Environment,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    Model,
    OnlineRequestSettings,
    ProbeSettings,
)
from azure.core.exceptions import ResourceNotFoundError
from azure.identity import DefaultAzureCredential

TRAINER = """
import argparse, json, pathlib
words = argparse.ArgumentParser()
words.add_argument("--corpus"), words.add_argument("--top", type=int), words.add_argument("--out")
told = words.parse_args()
counts = {}
for word in pathlib.Path(told.corpus).read_text().split():
    counts[word] = counts.get(word, 0) + 1
best = sorted(counts, key=lambda word: (-counts[word], word))[: told.top]
out = pathlib.Path(told.out)
out.mkdir(parents=True, exist_ok=True)
(out / "words.json").write_text(json.dumps(best))
print("most frequent:", " ".join(best), flush=True)
"""
SERVER = """
import json, os, pathlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

(file,) = pathlib.Path(os.environ["AZUREML_MODEL_DIR"]).rglob("words.json")
words = json.loads(file.read_text())


class Handler(BaseHTTPRequestHandler):
    def answer(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.answer("ok")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"known": [word in words for word in asked["words"]]})


print("serving", words, flush=True)
ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    folder, image, port = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    for name, text in (
        ("trainer/count.py", TRAINER),
        ("server/serve.py", SERVER),
        ("corpus.txt", "to be or not to be"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    ml = MLClient(
        DefaultAzureCredential(),
        subscription_id=os.environ["AZURE_SUBSCRIPTION_ID"],
        resource_group_name=os.environ["AZURE_RESOURCE_GROUP"],
        workspace_name=os.environ["AZURE_WORKSPACE"],
    )
    try:
        ml.compute.get("word-cluster")
        say(compute="there")
    except ResourceNotFoundError:
        made = ml.compute.begin_create_or_update(
            AmlCompute(name="word-cluster", size="Standard_DS3_v2", min_instances=0, max_instances=2)
        ).result()
        say(compute=made.provisioning_state)
    environment = ml.environments.create_or_update(Environment(name="word-env", image=image))
    corpus = ml.data.create_or_update(
        Data(name="corpus", path=str(folder / "corpus.txt"), type=AssetTypes.URI_FILE, version="1")
    )
    job = ml.jobs.create_or_update(
        command(
            code=str(folder / "trainer"),
            command="python count.py --corpus ${{inputs.corpus}} --top ${{inputs.top}} --out ${{outputs.found}}",
            inputs={"corpus": Input(type="uri_file", path=corpus.id), "top": 2},
            outputs={"found": Output(type="uri_folder")},
            environment=f"{environment.name}:{environment.version}",
            compute="word-cluster",
            experiment_name="words",
            display_name="count words",
        )
    )
    ml.jobs.stream(job.name)
    say(job=ml.jobs.get(job.name).status, listed=job.name in [found.name for found in ml.jobs.list()])
    ml.jobs.download(job.name, download_path=str(folder / "home"), output_name="found")
    (words,) = (folder / "home").rglob("words.json")
    say(words=json.loads(words.read_text()))
    model = ml.models.create_or_update(
        Model(name="word-model", path=f"azureml://jobs/{job.name}/outputs/found", type=AssetTypes.CUSTOM_MODEL)
    )
    say(model=model.name, version=model.version)
    ml.online_endpoints.begin_create_or_update(
        ManagedOnlineEndpoint(name="word-endpoint", auth_mode="key", tags={"team": "words"})
    ).result()
    probe = ProbeSettings(initial_delay=1, period=1, timeout=2, failure_threshold=30)
    route = {"port": int(port), "path": "/"}
    ml.online_deployments.begin_create_or_update(
        ManagedOnlineDeployment(
            name="first",
            endpoint_name="word-endpoint",
            model=model,
            environment=Environment(
                name="word-serving",
                image=image,
                inference_config={"liveness_route": route, "readiness_route": route, "scoring_route": route},
            ),
            code_configuration=CodeConfiguration(code=str(folder / "server"), scoring_script="serve.py"),
            environment_variables={"PORT": port},
            instance_type="Standard_DS3_v2",
            instance_count=1,
            liveness_probe=probe,
            readiness_probe=probe,
            request_settings=OnlineRequestSettings(request_timeout_ms=20_000, max_concurrent_requests_per_instance=4),
        )
    ).result()
    endpoint = ml.online_endpoints.get("word-endpoint")
    endpoint.traffic = {"first": 100}
    endpoint = ml.online_endpoints.begin_create_or_update(endpoint).result()
    question = folder / "question.json"
    question.write_text(json.dumps({"words": ["be", "question"]}))
    said = json.loads(ml.online_endpoints.invoke("word-endpoint", request_file=str(question)))
    keys = ml.online_endpoints.get_keys("word-endpoint")
    log = ml.online_deployments.get_logs("first", "word-endpoint", lines=20)
    say(answer=said, uri=endpoint.scoring_uri, two_keys=keys.primary_key != keys.secondary_key, log="serving" in log)
    ml.online_endpoints.begin_delete("word-endpoint").result()
    ml.compute.begin_delete("word-cluster").result()
    say(left=[found.name for found in ml.online_endpoints.list()])


if __name__ == "__main__":
    main()
