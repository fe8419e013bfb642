"""Conversations are kept as they were, for their user alone, in either store.

pytest tests/flows/test_history.py -k sqlite
"""

import time

import pytest

from flows.history import Message, NotFound, new_id, open_history
from flows.history.store import TITLE

#: Texts that something on the way could spoil.
TEXTS = {
    "script": "<script>alert(1)</script> & \"quotes\" 'and' `ticks`",
    "emoji": "👩🏽‍🚀 flew to the 🌙",
    "right to left": "من أسس مايكروسوفت؟ \u200f(عام 1975)",
    "SQL": "'; DROP TABLE messages; -- ${x} @user %s ? \\",
    "controls": "tab\tnul\0bell\a\r\nline\u2028end",
    "100 kB": "ä" * 100_000,
    "blank": "   ",
    "empty": "",
}


def said(role: str, content: str, **fields) -> Message:
    return Message(new_id(), role, content, time.time(), **fields)


def exchange(history, user: str, question: str = "Who founded Microsoft?", answer: str = "Two friends.") -> str:
    """A conversation of one question and one answer."""
    conversation = history.start(user)
    history.append(user, conversation, said("user", question), said("assistant", answer))
    return conversation


def test_a_conversation_begins_empty_and_is_listed(history):
    before = time.time()
    conversation = history.start("ada")
    (summary,) = history.list("ada")
    assert (summary.id, summary.title, summary.messages) == (conversation, "", 0)
    assert before - 1 <= summary.updated <= time.time() + 1
    assert history.open("ada", conversation) == []


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_messages_come_back_as_they_were(store, history, text):
    details = {"model": "tuned", "temperature": 0.5, "max_tokens": 128, "alternatives": [{"content": text}]}
    messages = [said("system", text), said("user", text), said("assistant", text, rating=-1, details=details)]
    conversation = history.start("ada")
    history.append("ada", conversation, messages[0])
    history.append("ada", conversation, *messages[1:])
    assert history.open("ada", conversation) == messages
    history.close()
    assert store.open().open("ada", conversation) == messages


def test_the_last_changed_comes_first_and_pages_leave_nothing_out(history):
    made = [exchange(history, "ada", f"Question {number}") for number in range(7)]
    history.append("ada", made[2], said("user", "and then?"))
    expected = [made[2], *reversed([one for one in made if one != made[2]])]
    assert [summary.id for summary in history.list("ada")] == expected
    assert [summary.id for summary in history.list("ada", limit=3)] == expected[:3]
    pages, before = [], None
    while page := history.list("ada", 2, before):
        assert len(page) <= 2
        pages += page
        before = page[-1].updated
    assert [summary.id for summary in pages] == expected
    assert history.list("ada", limit=0) == []


def test_searching_looks_into_titles_and_messages_whatever_the_case(history):
    told = exchange(history, "ada", "Who founded Microsoft?", "Bill Gates and PAUL Allen.")
    other = exchange(history, "ada", "Прощай", "100% sure, a_b")
    history.rename("ada", other, "Ärger")
    found = {
        text: [summary.id for summary in history.list("ada", search=text)]
        for text in ("MICROSOFT", "paul allen", "прОЩАЙ", "ärger", "100%", "0%s", "a_b", "aXb", "'", "nothing", " ")
    }
    assert found == {
        "MICROSOFT": [told],
        "paul allen": [told],
        "прОЩАЙ": [other],
        "ärger": [other],
        "100%": [other],
        "0%s": [],
        "a_b": [other],
        "aXb": [],
        "'": [],
        "nothing": [],
        " ": [other, told],
    }


def test_the_first_question_becomes_the_title_unless_there_is_one(history):
    conversation = history.start("ada")
    history.append("ada", conversation, said("system", "Be short."), said("user", "  Who\nfounded  it? "))
    history.append("ada", conversation, said("assistant", "They did."), said("user", "And when?"))
    titled = history.start("ada", "Mine")
    history.append("ada", titled, said("user", "Hello"))
    history.append("ada", history.start("ada"), said("user", "long " * 100))
    titles = [summary.title for summary in history.list("ada")]
    assert titles[1:] == ["Mine", "Who founded it?"]
    assert len(titles[0]) <= TITLE
    assert titles[0].startswith("long long")
    assert titles[0].endswith("…")


def test_appending_the_same_message_again_adds_nothing(history):
    conversation = history.start("ada")
    question, answer = said("user", "Hello"), said("assistant", "Hello!")
    history.append("ada", conversation, question)
    history.append("ada", conversation, question, answer)
    assert history.open("ada", conversation) == [question, answer]
    assert history.list("ada")[0].messages == 2


def test_the_same_message_id_in_two_conversations_is_two_messages(history):
    message = said("user", "Hello")
    for user in ("ada", "bob"):
        history.append(user, history.start(user), message)
    for user in ("ada", "bob"):
        (summary,) = history.list(user)
        assert history.open(user, summary.id) == [message]


@pytest.mark.parametrize(
    "bad",
    [
        {"role": "tool", "content": "x"},
        {"role": "user", "content": "half \ud83d a pair"},
        {"role": "user", "content": "x", "rating": 2},
        {"role": "assistant", "content": "x", "details": {"temperature": float("nan")}},
        {"role": "assistant", "content": "x", "details": {"model": object()}},
        {"role": "assistant", "content": "x", "details": {"model": "\ud83d"}},
    ],
)
def test_a_message_that_cannot_be_kept_is_refused_with_those_beside_it(history, bad):
    conversation = history.start("ada")
    with pytest.raises(ValueError, match=r"^(role|content|rating|details)\b"):
        history.append("ada", conversation, said("user", "Hello"), said(**bad))
    assert history.open("ada", conversation) == []


def test_truncating_takes_that_message_and_all_after_it(history):
    conversation = exchange(history, "ada")
    history.append("ada", conversation, said("user", "And when?"), said("assistant", "In 1975."))
    messages = history.open("ada", conversation)
    history.truncate("ada", conversation, messages[2].id)
    assert history.open("ada", conversation) == messages[:2]
    assert history.list("ada")[0].messages == 2
    again = said("user", "Where?")
    history.append("ada", conversation, again)
    assert history.open("ada", conversation) == [*messages[:2], again]
    history.truncate("ada", conversation, messages[0].id)
    assert history.open("ada", conversation) == []


def test_others_take_the_place_of_what_is_taken_away_or_nothing_is(history):
    conversation = exchange(history, "ada")
    asked, answered = history.open("ada", conversation)
    better = said("assistant", "Bill Gates and Paul Allen.")
    history.truncate("ada", conversation, answered.id, better)
    assert history.open("ada", conversation) == [asked, better]
    assert history.list("ada")[0].messages == 2
    with pytest.raises(ValueError, match=r"^role\b"):
        history.truncate("ada", conversation, better.id, said("tool", "x"))
    with pytest.raises(NotFound):
        history.truncate("ada", conversation, answered.id, said("assistant", "Somebody."))
    assert history.open("ada", conversation) == [asked, better]


def test_a_conversation_begins_with_its_messages_or_not_at_all(history):
    first = said("user", "Who founded Microsoft?")
    conversation = history.start("ada", messages=[first])
    assert history.open("ada", conversation) == [first]
    (listed,) = history.list("ada")
    assert (listed.title, listed.messages) == ("Who founded Microsoft?", 1)
    with pytest.raises(ValueError, match=r"^content\b"):
        history.start("ada", messages=[said("user", "half \ud83d a pair")])
    assert history.list("ada") == [listed]


def test_rating_sets_and_takes_back_a_thumb_and_moves_nothing(history):
    conversation = exchange(history, "ada")
    exchange(history, "ada", "Another")
    listed = history.list("ada")
    answer = history.open("ada", conversation)[1]
    for rating in (1, -1, 0):
        history.rate("ada", conversation, answer.id, rating)
        assert history.open("ada", conversation)[1].rating == rating
    with pytest.raises(ValueError, match=r"^rating 5: must be"):
        history.rate("ada", conversation, answer.id, 5)
    assert history.list("ada") == listed


def test_renaming_and_deleting(history):
    kept, gone = exchange(history, "ada"), exchange(history, "ada")
    history.rename("ada", kept, " A  new\nname ")
    with pytest.raises(ValueError, match=r"^title: is empty"):
        history.rename("ada", kept, "  ")
    history.delete("ada", gone)
    assert [(summary.id, summary.title) for summary in history.list("ada")] == [(kept, "A new name")]
    with pytest.raises(NotFound):
        history.open("ada", gone)
    with pytest.raises(NotFound):
        history.append("ada", gone, said("user", "Hello?"))
    assert history.list("ada", search="founded")[0].id == kept
    assert len(history.list("ada", search="founded")) == 1


#: Every method that takes a conversation, as somebody calls it.
CALLS = {
    "open": lambda history, user, conversation, message: history.open(user, conversation),
    "append": lambda history, user, conversation, message: history.append(user, conversation, said("user", "mine")),
    "append nothing": lambda history, user, conversation, message: history.append(user, conversation),
    "truncate": lambda history, user, conversation, message: history.truncate(user, conversation, message),
    "rate": lambda history, user, conversation, message: history.rate(user, conversation, message, 1),
    "rename": lambda history, user, conversation, message: history.rename(user, conversation, "mine"),
    "delete": lambda history, user, conversation, message: history.delete(user, conversation),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_anothers_conversation_is_as_if_it_were_not_there(history, call):
    conversation = exchange(history, "ada")
    exchange(history, "eve", "My own")
    messages, listed = history.open("ada", conversation), history.list("ada")
    for user in ("eve", "Ada", "ada "):
        with pytest.raises(NotFound) as refused:
            call(history, user, conversation, messages[1].id)
        with pytest.raises(NotFound) as unknown:
            call(history, user, "0" * 32, messages[1].id)
        # nor does the message tell whether there is one
        assert str(refused.value).replace(conversation, "0" * 32) == str(unknown.value)
    assert history.open("ada", conversation) == messages
    assert history.list("ada") == listed


def test_lists_and_searches_hold_ones_own_alone(history):
    names = ["ada", "ADA", "a/d?a#", "' OR 1=1 --", "名前", "x" * 200]
    made = {user: exchange(history, user, f"Who is {number}?") for number, user in enumerate(names)}
    for user in names:
        assert [summary.id for summary in history.list(user)] == [made[user]]
        assert [summary.id for summary in history.list(user, search="who is")] == [made[user]]
        assert len(history.open(user, made[user])) == 2
    assert history.list("nobody") == []


@pytest.mark.parametrize("call", [CALLS["truncate"], CALLS["rate"]], ids=["truncate", "rate"])
def test_a_message_that_is_not_there_changes_nothing(history, call):
    conversation, other = exchange(history, "ada"), exchange(history, "ada")
    messages = history.open("ada", conversation)
    with pytest.raises(NotFound, match=r"^'?message "):
        call(history, "ada", conversation, history.open("ada", other)[0].id)
    assert history.open("ada", conversation) == messages


@pytest.mark.parametrize("conversation", ["", "../ada", "a/b?c#d", "0" * 32, "é" * 400, "nul\0"])
def test_a_name_that_is_no_conversations_is_not_found(history, conversation):
    exchange(history, "ada")
    for call in CALLS.values():
        with pytest.raises(NotFound):
            call(history, "ada", conversation, "0" * 32)


@pytest.mark.parametrize("user", ["", "  ", "half \ud83d"])
def test_a_name_that_is_no_users_is_refused(history, user):
    for call in CALLS.values():
        with pytest.raises(ValueError, match=r"^user: "):
            call(history, user, "0" * 32, "0" * 32)
    for call in (history.start, history.list):
        with pytest.raises(ValueError, match=r"^user: "):
            call(user)


@pytest.mark.parametrize("setting", ["postgres", "sqlite:", "sqlite", "cosmos:x"])
def test_a_setting_that_names_no_store_is_refused(setting):
    with pytest.raises(ValueError, match=r"^PHIKIT_HISTORY .*: must be sqlite:PATH or cosmos$"):
        open_history({"PHIKIT_HISTORY": setting})


def test_cosmos_needs_an_address():
    with pytest.raises(ValueError, match=r"^PHIKIT_COSMOS_URI: "):
        open_history({"PHIKIT_HISTORY": "cosmos"})


def test_without_a_setting_there_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_history({"PHIKIT_HISTORY": ""}).close()
    assert (tmp_path / "history" / "conversations.db").is_file()
