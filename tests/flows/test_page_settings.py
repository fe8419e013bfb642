"""The page's settings: what each does, and what is said of a wrong one."""

import sys
from pathlib import Path

import pytest

from flows.history import open_history
from flows.page.settings import BadInput, Settings, variables


def findings(**told: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        Settings.load(told)
    return caught.value.findings


def test_nothing_set_is_a_page_on_this_machine_alone():
    settings = Settings.load({"PATH": "/bin", "PHIKIT_CHAT_PORT": " ", "PHIKIT_CHAT_LOGINS": ""})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.flow) == ("127.0.0.1", 7860, "http://127.0.0.1:8080/score")


def test_every_setting_is_read():
    settings = Settings.load(
        {
            "PHIKIT_FLOW_URI": "http://flow:8080/score",
            "PHIKIT_CHAT_HOST": "0.0.0.0",
            "PHIKIT_CHAT_PORT": "0",
            "PHIKIT_CHAT_LOGINS": "ada:a long: password, grace:another one",
            "PHIKIT_CHAT_RUN": "runs/first",
            "PHIKIT_CHAT_ANONYMOUS": "0",
            "PHIKIT_CHAT_COMPARE": "1",
        }
    )
    logins = {"ada": "a long: password", "grace": "another one"}
    assert settings == Settings("http://flow:8080/score", "0.0.0.0", 0, logins, False, Path("runs/first"), True)
    assert len(variables()) == 8


def test_the_base_model_s_address_is_enough_to_compare():
    assert Settings.load({"PHIKIT_BASE_ENDPOINT_URI": "http://127.0.0.1:5002/score"}).compare
    told = {"PHIKIT_BASE_ENDPOINT_URI": "http://127.0.0.1:5002/score", "PHIKIT_CHAT_COMPARE": "0"}
    assert not Settings.load(told).compare


def test_passwords_do_not_show():
    settings = Settings.load({"PHIKIT_CHAT_LOGINS": "ada:hidden-password"})
    assert "hidden" not in repr(settings)
    told = findings(PHIKIT_CHAT_LOGINS="ada:short,hidden-password,ada:hidden-password,ada:hidden-password")
    assert "hidden" not in "".join(told)
    assert [line.partition(":")[0] for line in told] == [
        f"PHIKIT_CHAT_LOGINS, number {place}" for place in (1, 2, 3, 4)
    ]


def test_every_wrong_one_is_reported_at_once():
    told = findings(
        PHIKIT_FLOW_URI="flow:8080",
        PHIKIT_CHAT_PORT="70000",
        PHIKIT_CHAT_ANONYMOUS="perhaps",
        PHIKIT_CHAT_HOST="0.0.0.0",
        PHIKIT_CHAT_PROT="1",
    )
    names = ["PHIKIT_CHAT_PROT", "PHIKIT_FLOW_URI", "PHIKIT_CHAT_PORT", "PHIKIT_CHAT_ANONYMOUS", "PHIKIT_CHAT_HOST"]
    assert [line.replace(":", " ").split()[0] for line in told] == names


@pytest.mark.parametrize("told", [{"PHIKIT_CHAT_ANONYMOUS": "1"}, {"PHIKIT_CHAT_LOGINS": "ada:password"}])
def test_others_reach_the_page_only_where_something_guards_it(told):
    assert findings(PHIKIT_CHAT_HOST="0.0.0.0")
    assert Settings.load({"PHIKIT_CHAT_HOST": "0.0.0.0", **told}).host == "0.0.0.0"


def test_cosmos_without_its_packages_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.core", None)
    monkeypatch.delitem(sys.modules, "flows.history.cosmos", raising=False)
    with pytest.raises(ValueError, match=r"azure\.core is missing; install azure-cosmos and azure-identity"):
        open_history({"PHIKIT_HISTORY": "cosmos"})
