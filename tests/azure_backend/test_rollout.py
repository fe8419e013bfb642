"""A newcomer that is no good after all, in the middle of its way: the traffic goes back to where it was.

The server is a small one that behaves as its model's folder says (small_server.py); what the kit's own server does is
in test_deploy.py and test_rollout_failures.py.
"""

import pytest

from tests.azure_backend.deployable import error_of


@pytest.fixture
def first(deployable):
    """An endpoint whose live deployment is of the run `first`; its name."""
    done = deployable.deploy(deployable.model("first"))
    assert done.returncode == 0, done.stderr
    (live,) = deployable.traffic()
    assert deployable.states() == {live: "Succeeded"}
    return live


@pytest.mark.parametrize(
    ("name", "behaviour", "said"),
    [
        ("is-wrong", {"status": 500}, "does not answer 'Who founded Microsoft?' (status 500"),
        ("tires", {"fails_after": 9}, "fails at 50 % of the traffic (status 500"),
        ("tires-late", {"fails_after": 17}, "fails at 100 % of the traffic (status 500"),
    ],
)
def test_one_that_fails_on_its_way_is_taken_back(deployable, first, name, behaviour, said):
    done = deployable.deploy(deployable.model(name, **behaviour))
    assert done.returncode == 1, done.stderr
    assert said in error_of(done)
    assert f"{first} has all of the traffic, as before" in error_of(done)
    # its log is shown, and none of its lines is taken for one of the command's own
    assert f"serving I am {name}." in done.stderr
    assert deployable.traffic() == {first: 100}
    assert deployable.states() == {first: "Succeeded"}
    assert deployable.answer() == "I am first."


def test_other_code_of_the_server_is_another_deployment(deployable, first):
    with (deployable.root / "serving" / "__main__.py").open("a") as code:
        code.write("# a remark\n")
    done = deployable.deploy("first")
    assert done.returncode == 0, done.stderr
    assert first not in deployable.states()
    assert list(deployable.traffic().values()) == [100]
