"""`phikit rehearsal`: what it prints, how it ends."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from devtools.rehearsal import CLIENT, SUBSCRIPTION, TENANT, session
from devtools.rehearsal.refusals import NAMES, OPTIONS, Refusals
from devtools.settings import ROOT, inherited
from tests.rehearsal.raw import Arm
from tests.rehearsal.test_process import WORKSPACE

HEAVY = ["starlette", "uvicorn", "httpx", "cryptography", "sqlite3", "asyncio", "azure", "docker"]


def phikit(home, *words: str, **options) -> subprocess.CompletedProcess:
    """The command, as a person calls it; it may not take a minute."""
    environment = inherited() | {"PHIKIT_REHEARSAL_HOME": str(home)} | options.pop("more", {})
    return subprocess.run(
        [sys.executable, "-m", "devtools.cli", "rehearsal", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    yield home
    session.end(home)


def test_help_imports_nothing_of_the_emulator():
    program = f"""
import sys
from devtools.cli import cli
try:
    cli.main(["rehearsal", "refuse", "--help"], standalone_mode=True)
except SystemExit:
    pass
print("loaded:", *[name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_help_is_there_within_a_third_of_a_second(tmp_path):
    def seconds() -> float:
        begin = time.perf_counter()
        assert phikit(tmp_path, "--help").returncode == 0
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(5)) < 0.3


def test_every_refusal_and_option_is_in_the_help(tmp_path):
    said = phikit(tmp_path, "refuse", "--help").stdout
    listed = re.findall(r"^ {4,}([a-z-]+) {2,}\S", said, re.MULTILINE)
    assert [name for name in listed if name in NAMES] == list(NAMES)
    assert all(f"--{option} " in said for options in OPTIONS.values() for option in options)


def test_from_up_to_reset(home):
    assert phikit(home, "status").returncode == 1
    assert phikit(home, "down").stdout == "no rehearsal runs\n"
    up = phikit(home, "up")
    assert (up.returncode, up.stderr) == (0, "")
    for name in (
        TENANT,
        SUBSCRIPTION,
        "resource group  rehearsal",
        "workspace       rehearsal",
        "phikit rehearsal run",
    ):
        assert name in up.stdout
    assert "runs already" in phikit(home, "up").stdout
    status = phikit(home, "status")
    assert status.returncode == 0
    assert "nothing is refused" in status.stdout
    down = phikit(home, "down")
    assert (down.returncode, down.stdout) == (0, "the rehearsal is ended\n")
    assert (home / "state.db").exists()
    assert phikit(home, "reset").stdout == "the rehearsal begins anew\n"
    assert not home.exists()
    assert phikit(home, "reset").stdout == "there is nothing to remove\n"


def test_two_ups_at_once(home):
    command = [sys.executable, "-m", "devtools.cli", "rehearsal", "up"]
    environment = inherited() | {"PHIKIT_REHEARSAL_HOME": str(home)}
    both = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=-1, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0].splitlines()[0].partition(";")[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == ["A rehearsal of Azure runs", "A rehearsal of Azure runs already"]


def test_ctrl_c_while_it_starts_leaves_nothing_in_the_way(home):
    process = subprocess.Popen(
        [sys.executable, "-m", "devtools.cli", "rehearsal", "up"],
        cwd=ROOT,
        env=inherited() | {"PHIKIT_REHEARSAL_HOME": str(home)},
        stderr=-1,
        text=True,
    )
    while not (home / "azurite.log").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1].strip() == "interrupted"
    assert process.returncode == 130
    assert phikit(home, "up").returncode == 0


def test_run_starts_it_and_hands_on_exit_code_output_and_environment(home):
    program = "import os, sys, json; print(json.dumps({name: os.environ[name] for name in sys.argv[1:]})); sys.exit(7)"
    names = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_WORKSPACE", "HTTPS_PROXY", "REQUESTS_CA_BUNDLE", "NO_PROXY"]
    elsewhere = {"HTTPS_PROXY": "http://proxy.example:1", "https_proxy": "http://proxy.example:1"}
    done = phikit(home, "run", "--", sys.executable, "-c", program, *names, more=elsewhere)
    assert done.returncode == 7
    assert done.stderr == f"started a rehearsal of Azure in {home} (phikit rehearsal down ends it)\n"
    told = json.loads(done.stdout)
    assert told["AZURE_TENANT_ID"] == TENANT
    assert told["AZURE_CLIENT_ID"] == CLIENT
    assert told["REQUESTS_CA_BUNDLE"] == str(home / "ca.pem")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", told["HTTPS_PROXY"])
    assert told["NO_PROXY"] == "127.0.0.1,localhost,::1"


def test_run_signs_programs_in(rehearsal):
    program = """
from azure.identity import AzureCliCredential, DefaultAzureCredential
for credential in (DefaultAzureCredential(), AzureCliCredential()):
    print(len(credential.get_token("https://management.azure.com/.default").token) > 100)
"""
    done = phikit(rehearsal.home, "run", "--", sys.executable, "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nTrue\n", "")
    shown = phikit(rehearsal.home, "run", "--", "az", "account", "show", "--query", "id", "--output", "tsv")
    assert shown.stdout.strip() == SUBSCRIPTION


def test_run_hands_signals_on(rehearsal):
    program = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(9)); print('on', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "devtools.cli", "rehearsal", "run", "--", sys.executable, "-c", program],
        cwd=ROOT,
        env=rehearsal.outside,
        stdout=-1,
        text=True,
    )
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 9


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["refuse", "quotas"], "error: refuse quotas: there is no such refusal; did you mean quota?"),
        (["refuse", "quota", "--seconds", "3"], "error: refuse quota: has no option --seconds; none is known"),
        (["refuse", "--times", "3"], "error: NAME: is missing; phikit rehearsal refuse --help lists the refusals"),
        (["refuse", "quota", "--none", "--times", "3"], "error: --none: goes with no other option"),
        (["refuse", "quotas", "--none"], "error: refuse quotas: there is no such refusal; did you mean quota?"),
        (["refuse", "quota", "--times", "0"], "Error: Invalid value for '--times'"),
        (["run"], "Error: Missing argument"),
        (["run", "--", "no-such-program"], "error: COMMAND no-such-program: cannot be run: No such file or directory"),
        (["ups"], "Error: No such command 'ups'"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(rehearsal, words, line):
    done = phikit(rehearsal.home, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert any(said.startswith(line) for said in done.stderr.splitlines()), done.stderr
    assert "Traceback" not in done.stderr


def test_refusals_are_switched_on_listed_counted_and_switched_off(rehearsal):
    refusals = Refusals(rehearsal.store)
    assert phikit(rehearsal.home, "refuse").stdout == "nothing is refused\n"
    assert phikit(rehearsal.home, "refuse", "quota", "--times", "2").stdout == "refused: quota --times 2\n"
    assert refusals.is_on("quota")
    assert refusals.take("quota") == {"times": 2}
    phikit(rehearsal.home, "refuse", "slow", "--seconds", "0.5")
    phikit(rehearsal.home, "refuse", "role", "--on", "jobs/write")
    assert phikit(rehearsal.home, "refuse").stdout.splitlines() == [
        "refused: quota --times 1",
        "refused: slow --seconds 0.5",
        "refused: role --on jobs/write",
    ]
    assert refusals.take("quota")
    assert refusals.take("quota") is None
    assert not refusals.is_on("quota")
    assert refusals.take("slow")["seconds"] == 0.5
    assert refusals.is_on("slow")
    phikit(rehearsal.home, "refuse", "slow", "--none")
    assert not refusals.is_on("slow")
    assert phikit(rehearsal.home, "refuse", "--none").stdout == "nothing is refused\n"
    with pytest.raises(KeyError):
        refusals.take("no such")


def test_calls_are_printed(signed_in):
    Arm().get(WORKSPACE)
    last = phikit(signed_in.home, "calls", "--last", "2").stdout.splitlines()
    assert len(last) == 2
    assert last[-1].endswith("200  GET    management.azure.com/W?api-version=2024-10-01")
    assert '": "eyJ0' not in phikit(signed_in.home, "calls", "--bodies").stdout
    whole = [json.loads(line) for line in phikit(signed_in.home, "calls", "--json").stdout.splitlines()]
    assert whole[-1]["response"]["name"] == "rehearsal"


def test_an_engine_that_is_insisted_on_and_missing_is_one_line(home):
    done = phikit(home, "up", more={"PHIKIT_REHEARSAL_RUNNER": "docker", "DOCKER_HOST": f"unix://{home}/none.sock"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: the rehearsal does not start: no Docker engine answers: start one")
    assert done.stderr.count("\n") == 1


def test_a_file_in_the_place_of_the_home_is_one_line(tmp_path):
    (tmp_path / "home").write_text("a file")
    for words in (["up"], ["reset"], ["calls"], ["status"], ["refuse", "quota"], ["down"]):
        done = phikit(tmp_path / "home", *words)
        assert done.returncode == 2, words
        assert done.stderr == f"error: PHIKIT_REHEARSAL_HOME={tmp_path / 'home'}: is no folder\n"
