"""The chat service: a reply belongs to its worker; conversations to their user; branches to a tree."""

from __future__ import annotations

import threading

import pytest

from elysia.chat.accounts import AccountStore
from elysia.chat.generation.reply_stream import ReplyStream
from elysia.chat.message_tree import MessageState
from elysia.core.errors import ElysiaError, EngineError, PersonaError, StoreError, UsageError
from tests.chat.conftest import whole
from tests.chat.echo import EchoEngine


def talk(service, owner, guests=("elysia",), **settings):
    return service.create(owner, guests, {"examples": False, **settings}).id


def texts(service, user, id):
    return [line.text for line in service.get_messages(user, id)]


def test_a_conversation_opens_with_the_greeting_and_others_beside_it(service, user):
    id = talk(service, user)
    (line,) = service.get_messages(user, id)
    assert line.text.startswith("你来啦！") and line.role == "assistant"
    other = service.swipe(user, id, line.id, 1)
    assert service.get_messages(user, id)[0].id == other
    assert service.get_messages(user, id)[0].text.startswith("嘘")
    with pytest.raises(UsageError, match="no further branch"):
        service.swipe(user, id, other, 5)


def test_a_message_is_answered_and_kept(service, user):
    id = talk(service, user)
    reply = service.send(user, id, "你好呀")
    assert whole(service, user, id, reply) == "heard: 你好呀"
    message, answer = service.get_messages(user, id)[1:]
    assert (message.role, message.text, message.state) == ("user", "你好呀", MessageState.COMPLETE)
    assert (answer.id, answer.text, answer.state) == (reply, "heard: 你好呀", MessageState.COMPLETE)
    assert answer.details["finish"] == "stop" and answer.parent == message.id
    assert service.store.get(user, id).title == "爱莉希雅: 你好呀"
    request = service.model.engine.requests[0]
    assert [m.role for m in request.messages] == ["system", "assistant", "user"]
    assert "玻璃花房" in request.messages[0].text


def test_characters_that_databases_have_no_place_for_cost_no_message(service, user):
    id = talk(service, user)
    reply = service.send(user, id, "be\x00fore \ud83d after 𠮷 👩‍🚀")
    assert whole(service, user, id, reply) == "heard: before ? after 𠮷 👩‍🚀"
    assert texts(service, user, id)[1] == "before ? after 𠮷 👩‍🚀"


def test_a_page_that_leaves_and_comes_back_sees_the_reply_from_its_first_word(make):
    service = make(engine := EchoEngine(pause=0.005))
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    reply = service.send(user, id, "eins zwei drei vier fünf")
    pieces = service.follow(user, id, reply)
    first = "".join(next(pieces) for _ in range(3))
    pieces.close()  # the page is gone; the reply is not
    assert engine.running <= 1
    assert whole(service, user, id, reply) == "heard: eins zwei drei vier fünf"
    assert "heard: eins zwei drei vier fünf".startswith(first)
    assert whole(service, user, id, reply) == "heard: eins zwei drei vier fünf"  # from the store


def test_two_watchers_see_the_same(make):
    service = make(EchoEngine(pause=0.002))
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    reply = service.send(user, id, "x" * 60)
    seen = []
    watchers = [
        threading.Thread(target=lambda: seen.append(whole(service, user, id, reply)))
        for _ in range(4)
    ]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(60)
    assert seen == ["heard: " + "x" * 60] * 4


def test_stop_keeps_what_was_written_and_frees_the_engine(make):
    service = make(engine := EchoEngine(pause=0.02))
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    reply = service.send(user, id, "y" * 3000)
    pieces = service.follow(user, id, reply)
    while len(service.get_messages(user, id)[-1].text) < 9:
        next(pieces)
    service.stop(user, id)
    written = whole(service, user, id, reply)
    assert 9 <= len(written) < 3000
    line = service.get_messages(user, id)[-1]
    assert (line.state, line.text) == (MessageState.STOPPED, written)
    assert not service.is_busy(user, id)
    assert engine.running == 0


def test_a_new_message_stops_the_reply_before_it(make):
    service = make(EchoEngine(pause=0.02))
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    service.send(user, id, "z" * 3000)
    second = service.send(user, id, "never mind")
    assert whole(service, user, id, second) == "heard: never mind"
    states = [line.state for line in service.get_messages(user, id)]
    assert states == [
        MessageState.COMPLETE,
        MessageState.COMPLETE,
        MessageState.STOPPED,
        MessageState.COMPLETE,
        MessageState.COMPLETE,
    ]


def test_a_reply_is_made_anew_beside_the_first(service, user):
    id = talk(service, user)
    first = service.send(user, id, "hi")
    whole(service, user, id, first)
    second = service.regenerate(user, id, first)
    whole(service, user, id, second)
    line = service.get_messages(user, id)[-1]
    assert line.id == second and line.siblings == (first, second)
    assert service.swipe(user, id, second, -1) == first
    assert service.get_messages(user, id)[-1].id == first


def test_an_edited_message_begins_a_branch_and_the_old_one_stays(service, user):
    id = talk(service, user)
    reply = service.send(user, id, "old")
    whole(service, user, id, reply)
    message = service.get_messages(user, id)[1]
    new = service.edit(user, id, message.id, "new")
    whole(service, user, id, new)
    assert texts(service, user, id)[1:] == ["new", "heard: new"]
    service.swipe(user, id, service.get_messages(user, id)[1].id, -1)
    assert texts(service, user, id)[1:] == ["old", "heard: old"]


def test_a_reply_may_be_rewritten_and_what_follows_stays_on_its_own_branch(service, user):
    id = talk(service, user)
    reply = service.send(user, id, "hi")
    whole(service, user, id, reply)
    assert service.edit(user, id, reply, "my own words") is None
    assert texts(service, user, id)[1:] == ["hi", "my own words"]
    assert service.get_messages(user, id)[-1].details["edited"] is True


def test_undo_gives_the_text_back(service, user):
    id = talk(service, user)
    whole(service, user, id, service.send(user, id, "one"))
    whole(service, user, id, service.send(user, id, "two"))
    assert service.undo(user, id) == "two"
    assert texts(service, user, id)[1:] == ["one", "heard: one"]
    assert service.undo(user, id) == "one"
    with pytest.raises(UsageError, match="nothing to take back"):
        service.undo(user, id)


def test_a_deleted_message_takes_what_follows_with_it(service, user):
    id = talk(service, user)
    whole(service, user, id, service.send(user, id, "one"))
    whole(service, user, id, service.send(user, id, "two"))
    service.delete_message(user, id, service.get_messages(user, id)[3].id)
    assert texts(service, user, id)[1:] == ["one", "heard: one"]
    assert len(service.store.get_ids(user, id)) == 5  # three greetings and one exchange


def test_the_newest_lines_are_those_of_the_branch_that_is_shown(service, user):
    id = talk(service, user)
    for number in range(4):
        reply = service.send(user, id, f"turn {number}")
        whole(service, user, id, reply)
    whole(service, user, id, service.regenerate(user, id, reply))
    shown = [line.id for line in service.get_messages(user, id)]
    for count in (1, 3, len(shown), 100):
        assert [line.id for line in service.store.get_newest(user, id, count)] == shown[-count:]
    service.swipe(user, id, shown[-1], -1)
    assert [line.id for line in service.store.get_newest(user, id, 1)] == [reply]


def test_nothing_of_another_user_is_found_by_its_id(service, user):
    other = AccountStore(service.database).add("mallory", "a long password").id
    id = talk(service, user)
    reply = service.send(user, id, "my secret")
    whole(service, user, id, reply)
    calls = [
        lambda: service.get_messages(other, id),
        lambda: service.store.get_newest(other, id, 3),
        lambda: service.send(other, id, "hi"),
        lambda: service.stop(other, id),
        lambda: service.is_busy(other, id),
        lambda: service.undo(other, id),
        lambda: service.delete_conversation(other, id),
        lambda: service.delete_message(other, id, reply),
        lambda: service.edit(other, id, reply, "x"),
        lambda: service.regenerate(other, id, reply),
        lambda: service.swipe(other, id, reply, 1),
        lambda: service.get_prompt_breakdown(other, id, reply),
        lambda: service.update_settings(other, id, top_p=0.5),
        lambda: service.set_guests(other, id, ["elysia"]),
        lambda: list(service.follow(other, id, reply)),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="There is no such conversation"):
            call()
    own = talk(service, other)
    with pytest.raises(StoreError, match="no such message"):
        service.get_prompt_breakdown(
            other, own, reply
        )  # a message of somebody else's in a conversation of one's own
    with pytest.raises(StoreError, match="no such message"):
        service.store.add(other, own, [{"role": "user", "text": "x"}], parent=reply)
    assert service.store.all(other) == [service.store.get(other, own)]
    assert service.store.all(other, "secret") == []
    assert texts(service, user, id)[1] == "my secret"


def test_a_card_of_one_user_is_nobody_elses(service, user, shared_data):
    other = AccountStore(service.database).add("mallory", "a long password").id
    card = shared_data / "cards" / "jasl_test_character.png"
    mine = service.characters.add(user, "../../x.png", card.read_bytes())
    assert mine.file == "x.png" and mine.picture == mine.card.picture.to_bytes()
    assert [m.key for m in service.characters.all(user)][-1] == mine.key
    with pytest.raises(PersonaError, match="no such character"):
        service.create(other, [mine.key])
    with pytest.raises(PersonaError, match="no such character"):
        service.characters.remove(other, mine.key)
    id = talk(service, user, [mine.key])
    service.characters.remove(user, mine.key)
    assert texts(service, user, id)  # what was said stays readable
    with pytest.raises(PersonaError):
        service.send(user, id, "are you there?")


def test_an_engine_that_fails_keeps_the_words_and_a_retry_answers(make):
    broken = [True]

    def reply(request):
        if broken[0]:
            raise EngineError("The server at http://127.0.0.1:1 does not answer.")
        return "back"

    service = make(EchoEngine(reply=reply))
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    failed = service.send(user, id, "hello?")
    whole(service, user, id, failed)
    message, line = service.get_messages(user, id)[1:]
    assert message.text == "hello?"
    assert line.state == MessageState.FAILED and "does not answer" in line.fault
    broken[0] = False
    again = service.regenerate(user, id, failed)
    assert whole(service, user, id, again) == "back"


def test_a_mistake_of_ours_ends_one_reply_and_no_worker(make):
    faults = iter([ZeroDivisionError("oops"), None] + [None] * 20)

    def reply(request):
        if fault := next(faults):
            raise fault
        return "fine"

    service = make(EchoEngine(reply=reply, slots=1))
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    whole(service, user, id, service.send(user, id, "a"))
    assert "because of a bug: ZeroDivisionError" in service.get_messages(user, id)[-1].fault
    for word in "bcdefgh":
        assert whole(service, user, id, service.send(user, id, word)) == "fine"


def test_replies_whose_process_died_are_marked_at_the_next_start(make):
    service = make(EchoEngine(pause=0.01))
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    head = service.store.get(user, id).head
    service.store.writer = "elsewhere:1"  # no such process
    service.store.add(
        user,
        id,
        [
            {"role": "user", "text": "hi"},
            {"role": "assistant", "text": "I was", "state": MessageState.WRITING},
        ],
        parent=head,
    )
    again = make(EchoEngine())
    line = again.get_messages(user, id)[-1]
    assert (line.state, line.text) == (MessageState.CUT, "I was") and "Try again" in line.fault
    assert line.details["error"]["code"] == "chat.cut_short"
    assert whole(again, user, id, again.regenerate(user, id, line.id)) == "heard: hi"


def test_another_process_may_watch_and_stop_a_reply(make):
    """Two services over one file stand for two processes: they share nothing in memory."""
    writer, watcher = make(EchoEngine(pause=0.02)), make(EchoEngine())
    user = AccountStore(writer.database).local().id
    id = talk(writer, user)
    reply = writer.send(user, id, "w" * 3000)
    seen = ""
    for piece in watcher.follow(user, id, reply):
        seen += piece
        if len(seen) > 6:
            watcher.stop(user, id)
    line = watcher.get_messages(user, id)[-1]
    assert line.text.startswith(seen[:6]) and line.state == MessageState.STOPPED
    assert len(whole(writer, user, id, reply)) < 3000


@pytest.mark.parametrize("text", ["", "  \n", "\x00"])
def test_an_empty_message_is_refused(service, user, text):
    id = talk(service, user)
    with pytest.raises(UsageError, match="Write something"):
        service.send(user, id, text)
    assert len(service.get_messages(user, id)) == 1


def test_who_the_user_is_may_be_set(service, user):
    id = talk(service, user)
    assert service.update_settings(user, id, user={"name": "阿明"}).settings["user"] == {
        "name": "阿明"
    }


def test_settings_out_of_range_or_unknown_are_refused_and_nothing_changes(service, user):
    id = talk(service, user)
    for values in ({"temperature": -1}, {"top_p": 0}, {"round": 9}, {"tempurature": 1}):
        with pytest.raises(ElysiaError):
            service.update_settings(user, id, **values)
    assert service.update_settings(user, id, top_p=0.5).settings["top_p"] == 0.5


def test_a_message_beyond_the_context_is_told_and_kept(make):
    service = make(EchoEngine(context=600))
    user = AccountStore(service.database).local().id
    id = talk(service, user, max_new_tokens=50)
    reply = service.send(user, id, "long " * 400)
    whole(service, user, id, reply)
    line = service.get_messages(user, id)[-1]
    assert line.state == MessageState.FAILED and "no room for a reply" in line.fault
    error = line.details["error"]
    assert error["code"] == "chat.card_leaves_no_room" and error["params"]["context"] == 600
    assert line.render_fault("en") == line.fault and "没有地方写回答" in line.render_fault("zh")


def test_the_oldest_turns_leave_the_prompt_first_and_the_receipt_counts_them(make):
    service = make(EchoEngine(context=900))
    user = AccountStore(service.database).local().id
    id = talk(service, user, max_new_tokens=50)
    for number in range(12):
        whole(service, user, id, service.send(user, id, f"turn {number} " + "w" * 30))
    request = service.model.engine.requests[-1]
    assert service.model.engine.count_tokens(request.messages, None) + 50 <= 900
    assert request.messages[-1].text.startswith("turn 11")
    shown = [m.text for m in request.messages if m.text.startswith("turn")]
    assert shown == sorted(shown, key=lambda t: int(t.split()[1])) and len(shown) < 12
    breakdown = service.get_prompt_breakdown(user, id, service.get_messages(user, id)[-1].id)
    assert breakdown["left_out"] > 0
    assert breakdown["tokens"]["prompt"] <= 850
    assert [m["text"] for m in breakdown["prompt"]] == [m.text for m in request.messages]


def test_the_receipt_names_the_lore_that_a_word_woke(service, user):
    id = talk(service, user, ["xiaotang"])
    reply = service.send(user, id, "绵绵又在睡觉吗？风铃坡下雨了没有？")
    whole(service, user, id, reply)
    breakdown = service.get_prompt_breakdown(user, id, reply)
    assert breakdown["prompt"][0]["role"] == "system"
    for lore in breakdown["lore"]:
        assert lore["why"] and lore["text"] in breakdown["prompt"][0]["text"]


def test_what_the_user_is_told_to_be_reaches_the_prompt(service, user):
    id = talk(service, user, user={"name": "阿明", "description": "阿明是个花匠。"})
    whole(service, user, id, service.send(user, id, "在吗"))
    system = service.model.engine.requests[0].messages[0].text
    assert "阿明推门进来" in system and "阿明是个花匠" in system
    assert "\n阿明：" in service.model.engine.requests[0].stop


def test_her_own_name_before_a_reply_and_words_put_into_the_users_mouth_are_cut(make):
    service = make(EchoEngine(reply=lambda request: "爱莉希雅：来坐呀。\n阿明：好的！"))
    user = AccountStore(service.database).local().id
    id = talk(service, user, user={"name": "阿明"})
    assert whole(service, user, id, service.send(user, id, "在吗")) == "来坐呀。"


def test_many_replies_at_once_use_the_slots_and_no_more(make):
    service = make(engine := EchoEngine(slots=3, pause=0.002))
    accounts = AccountStore(service.database)
    people = [accounts.get_or_create(f"u{n}").id for n in range(8)]
    replies = []
    for number, person in enumerate(people):
        id = talk(service, person)
        replies.append((person, id, service.send(person, id, f"I am number {number}")))
    for number, (person, id, reply) in enumerate(replies):
        assert whole(service, person, id, reply) == f"heard: I am number {number}"
    assert 1 <= engine.most <= 3


def test_a_removed_conversation_is_gone_even_while_it_is_written(make):
    service = make(EchoEngine(pause=0.02))
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    service.send(user, id, "q" * 3000)
    service.delete_conversation(user, id)
    with pytest.raises(StoreError):
        service.get_messages(user, id)
    assert service.store.all(user) == []


def test_conversations_are_found_by_title_and_words(service, user):
    first, second = talk(service, user), talk(service, user, ["dudu"])
    whole(service, user, first, service.send(user, first, "the lighthouse 100% glows"))
    whole(service, user, second, service.send(user, second, "something else"))
    assert [c.id for c in service.store.all(user, "LIGHTHOUSE")] == [first]
    assert [c.id for c in service.store.all(user, "100%")] == [first]
    assert service.store.all(user, "%e%l%s%") == []
    assert [c.id for c in service.store.all(user)] == [second, first]


def test_a_watcher_that_comes_when_all_is_said_gets_all():
    stream = ReplyStream()
    stream.write("ab")
    stream.write("c")
    stream.end(MessageState.COMPLETE)
    assert "".join(stream.iter_chunks()) == "abc"


def test_what_no_longer_fits_is_summed_up_and_rolls_on(make):
    service = make(EchoEngine(context=1500))
    user = AccountStore(service.database).local().id
    id = talk(service, user, max_new_tokens=40)
    whole(service, user, id, service.send(user, id, "我叫小林，住在北京，决定下个月搬家。"))
    for number in range(24):
        whole(service, user, id, service.send(user, id, f"{number} " + "嗯" * 40))
    lines = service.get_messages(user, id)
    breakdown = service.get_prompt_breakdown(user, id, lines[-1].id)
    assert breakdown["left_out"] > 2
    assert "住在北京" in breakdown["summary"]
    assert breakdown["summary"] in breakdown["prompt"][0]["text"]
    ends = [line.details["summary"]["upto"] for line in lines if "summary" in line.details]
    numbers = {line.id: line.number for line in lines}
    assert [numbers[id] for id in ends] == sorted(numbers[id] for id in ends)
    service.update_settings(user, id, memory=False)
    reply = service.send(user, id, "还在吗")
    whole(service, user, id, reply)
    assert service.get_prompt_breakdown(user, id, reply)["summary"] == ""
