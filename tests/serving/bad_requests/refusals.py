"""What every refusal of the server must be: in the shape of its route, and without a word of the request."""

from tests.serving.server import Answer

#: In every prompt, key and unknown field's value here; nothing that the server says or logs may hold it.
CANARY = "kanarienvogel"
KEY = f"key-of-a-{CANARY}"
SECRET = [{"role": "user", "content": CANARY}]
#: Seconds that the server waits for a silent client.
PATIENCE = 1.5
MEBIBYTE = 2**20


def refused(answer: Answer, status: int, named: str) -> None:
    """It is that refusal, in the shape of its route, and it repeats nothing."""
    assert answer.status == status, answer.body
    assert named in answer.message
    assert CANARY not in answer.body.decode()
    assert answer.headers["Content-Type"] == "application/json"
