"""`phikit mlflow`: MLflow's own server over the local store, until Ctrl-C."""

import signal
import sqlite3
import urllib.request

from devtools.local_server import free_port, is_free


def test_the_page_is_served_on_loopback_until_ctrl_c(checkout, backend):
    port = free_port()
    process = checkout.start("mlflow", "--backend", backend, "--port", str(port), "--no-open")
    url = f"http://127.0.0.1:{port}"
    for line in process.stderr:
        if url in line and line.startswith("MLflow: "):
            break
    with urllib.request.urlopen(url, timeout=30) as page:
        assert "MLflow" in page.read().decode()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert is_free(port)
    store = checkout.root / "runs" / "mlflow.db"
    assert store.stat().st_uid == checkout.root.stat().st_uid
    with sqlite3.connect(store) as opened:
        assert opened.execute("select name from experiments").fetchall() == [("Default",)]


def test_a_taken_port_is_refused_with_a_free_one(checkout):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = checkout.phikit("mlflow", "--backend", "venv", "--port", str(port), "--no-open")
    assert done.returncode == 2
    assert f"error: --port {port}: is taken; give another, say --port " in done.stderr


def test_a_store_elsewhere_has_a_page_of_its_own(checkout):
    done = checkout.phikit("mlflow", "--backend", "venv", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "error: MLFLOW_TRACKING_URI names a server" in done.stderr
