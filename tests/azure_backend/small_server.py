"""In place of the scoring server where a deployment is to start at once: it behaves as its model's folder says.

behaviour.json beside the MLmodel file: `answer` (the text), `dies` (does not load), `status` (instead of 200),
`fails_after` (requests that are answered rightly), `slow` (seconds for an answer).
"""

import json
import os
import pathlib
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

(file,) = pathlib.Path(os.environ["AZUREML_MODEL_DIR"]).rglob("behaviour.json")
told = json.loads(file.read_text())
if told.get("dies"):
    sys.exit("error: weights: there is no such layer")
asked, lock = [], threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.reply(200, "fine")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            asked.append(body)
            late = told.get("fails_after") is not None and len(asked) > told["fails_after"]
        time.sleep(told.get("slow", 0))
        status = 500 if late else told.get("status", 200)
        self.reply(status, [told["answer"]] if status == 200 else {"error": "out of tune"})

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer.request_queue_size = 128
server = ThreadingHTTPServer((os.environ["PHIKIT_SERVE_HOST"], int(os.environ["PHIKIT_SERVE_PORT"])), Handler)
print("serving", told["answer"], flush=True)
server.serve_forever()
