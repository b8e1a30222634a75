"""The store: what is remembered is found, replaced, corrected and forgotten, and stays in its scope."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from elysia.core.errors import MemoryFault
from elysia.memory.base import MemoryInput, MemoryScope, ReasonKind
from elysia.memory.extract import UserFact
from elysia.store.tables import memories

ROOT = Path(__file__).resolve().parents[2]


def texts(store, scope, question, **options):
    return [hit.memory.text for hit in store.recall(scope, question, **options)]


def facts(store, scope, current=True):
    return {
        memory.text
        for memory in store.list_memories(scope, kind="fact")
        if memory.current or not current
    }


def test_what_was_said_is_found_in_either_script_and_by_other_words(store, scope, say):
    store.remember(
        scope,
        [
            say("我最近在学陶艺，做了一只歪歪的杯子"),
            say("今天下雨了"),
            say("I walked my greyhound"),
        ],
    )
    assert texts(store, scope, "陶藝學得怎樣？")[0].startswith("我最近在学陶艺")
    assert texts(store, scope, "walking the greyhounds")[0] == "I walked my greyhound"


def test_a_message_heard_twice_is_remembered_once(store, scope, say):
    message = say("我叫林晓")
    assert len(store.remember(scope, [message, message])) == 2  # the turn and the fact
    assert store.remember(scope, [message]) == []
    assert len(store.list_memories(scope)) == 2


def test_a_newer_fact_takes_the_older_ones_place(store, scope, say):
    store.remember(scope, [say("我住在北京"), say("我喜欢喝咖啡"), say("我喜欢爬山")])
    store.remember(scope, [say("我搬到上海了"), say("我不喜欢喝咖啡了")])
    assert facts(store, scope) == {"我搬到上海了", "我不喜欢喝咖啡了", "我喜欢爬山"}
    assert "我住在北京" in facts(store, scope, current=False)  # kept, and told apart
    hits = store.recall(scope, "我现在住在哪里？")
    assert hits[0].memory.text == "我搬到上海了" and hits[0].memory.current
    assert not any(hit.memory.current and hit.memory.text == "我住在北京" for hit in hits)


def test_an_older_talk_that_is_heard_later_does_not_win(store, scope, say):
    early, late = say("I live in Leeds"), say("I live in Bristol now")
    store.remember(scope, [late])
    store.remember(scope, [early])
    assert facts(store, scope) == {"I live in Bristol now"}


def test_what_ends_a_fact_ends_only_one_that_is_known(store, scope, say):
    store.remember(scope, [say("我不跑步了")])
    assert facts(store, scope) == set()
    store.remember(
        scope, [say("我每天早上跑五公里"), say("我不跑步了"), say("I've dropped the marathon")]
    )
    assert facts(store, scope) == {"我不跑步了"}


def test_the_answer_beside_the_match_is_found(store, scope, say):
    exchange = [
        say("Which park did you go to?", "assistant"),
        say("Green Meadow, there was a squirrel"),
        say("Lovely!", "assistant"),
    ]
    other = [
        say(f"Number {n} is about something else entirely", conversation=f"t{n}") for n in range(30)
    ]
    store.remember(scope, [*other, *exchange])
    assert "Green Meadow, there was a squirrel" in texts(store, scope, "which park", k=3)


def test_days_and_ends_of_time_are_asked_for(store, scope, say):
    day = 86_400.0
    messages = [
        say(f"话题{n}：{'山海云树'[n % 4]}", conversation=f"t{n}", at=1_715_600_000.0 - n * day)
        for n in range(1, 20)
    ]
    store.remember(scope, sorted(messages, key=lambda message: message.at))
    assert texts(store, scope, "前天我说了什么？", k=1) == ["话题2：云"]
    assert texts(store, scope, "我们上次聊了什么？", k=1) == ["话题1：海"]


def test_messages_that_stand_in_the_prompt_anyway_are_left_out(store, scope, say):
    first, two = say("我养了一只猫，叫年糕"), say("年糕今天很乖")
    store.remember(scope, [first, two])
    hits = store.recall(scope, "年糕", without=[first.message_id])
    assert [memory.memory.message_id for memory in hits] == [two.message_id]


def test_a_question_without_a_shared_word_finds_nothing(store, scope, say):
    store.remember(scope, [say("The kettle is broken")])
    assert store.recall(scope, "quantum chromodynamics") == []
    assert store.recall(MemoryScope("bob", "elysia"), "kettle") == []


def test_a_correction_is_the_users_words_and_marks_the_old_turn(store, scope, say):
    store.remember(scope, [say("我叫林小")])
    (fact,) = store.list_memories(scope, kind="fact")
    assert store.correct(scope, fact.id, " 我叫林晓 ").corrected
    hits = store.recall(scope, "我叫什么名字？")
    assert hits[0].memory.text == "我叫林晓"
    assert all(not hit.memory.current for hit in hits if hit.memory.text == "我叫林小")
    with pytest.raises(MemoryFault, match="forget it instead"):
        store.correct(scope, fact.id, "  ")


def test_a_forgotten_fact_takes_what_it_replaced_and_does_not_come_back(open_store, scope, say):
    store = open_store()
    old, new, other = say("我住在北京"), say("我搬到上海了"), say("我喜欢爬山")
    store.remember(scope, [old, new, other])
    now = next(
        memory
        for memory in store.list_memories(scope, kind="fact")
        if memory.slot == "home" and memory.current
    )
    store.forget(scope, now.id)
    assert facts(store, scope, current=False) == {"我喜欢爬山"}
    store.remember(scope, [old, new])
    for reopened in (store, open_store()):
        assert not {"我住在北京", "我搬到上海了"} & set(
            texts(reopened, scope, "我住在哪里，北京还是上海？", k=20)
        )
        assert reopened.remember(scope, [old, new]) == []


def test_a_forgotten_turn_takes_its_facts_and_what_they_had_replaced(store, scope, say):
    store.remember(scope, [say("我住在北京，我喜欢爬山"), say("我搬到上海了")])
    turn = next(
        memory for memory in store.list_memories(scope, kind="turn") if "上海" in memory.text
    )
    store.forget(scope, turn.id)
    assert facts(store, scope, current=False) == {"我喜欢爬山"}
    assert store.recall(scope, "北京还是上海") == []


def test_what_is_forgotten_is_gone_from_the_database_and_the_index(
    store, scope, say, tmp_path, database
):
    store.remember(scope, [say("my secret is xylophone")])
    turn = next(memory for memory in store.list_memories(scope) if memory.kind == "turn")
    store.forget(scope, turn.id)
    assert store._index.search([*store._checked], "xylophone", k=5) == []
    with database.read() as connection:
        assert all("xylophone" not in text for text in connection.scalars(select(memories.c.text)))


def test_deleted_messages_leave_nothing_and_the_fact_before_them_counts_again(store, scope, say):
    first, second, third = say("I live in Leeds"), say("I live in York"), say("I live in Bath")
    store.remember(scope, [first, second, third])
    store.forget_messages(scope, [second.message_id])
    assert facts(store, scope) == {"I live in Bath"}
    store.forget_messages(scope, [third.message_id])
    assert facts(store, scope) == {"I live in Leeds"}
    # Written anew, it is heard anew.
    assert store.remember(scope, [third])


def test_forgetting_everything_leaves_the_other_scopes(store, scope, say):
    other = MemoryScope("ann", "raven")
    store.remember(scope, [say("the harbour")])
    store.remember(other, [say("the harbour at night")])
    store.forget_all(scope)
    assert store.list_memories(scope) == [] and store.recall(scope, "harbour") == []
    assert texts(store, other, "harbour") == ["the harbour at night"]


def test_nobody_reaches_another_scopes_memory_by_its_id(store, scope, say):
    store.remember(scope, [say("the harbour")])
    (harbour,) = store.list_memories(scope)
    for stranger in (MemoryScope("bob", "elysia"), MemoryScope("ann", "raven")):
        for act in (
            lambda who: store.forget(who, harbour.id),
            lambda who: store.correct(who, harbour.id, "x"),
        ):
            with pytest.raises(MemoryFault, match="no memory"):
                act(stranger)
        store.forget_messages(stranger, [str(harbour.message_id)])
        store.forget_all(stranger)
    assert [memory.text for memory in store.list_memories(scope)] == ["the harbour"]


@pytest.mark.parametrize("seed", range(2))
def test_random_users_and_characters_never_see_each_other(store, say, seed):
    rng = random.Random(seed)
    scopes = [
        MemoryScope(user, who)
        for user in ("ann", "bob")
        for who in ("elysia", "raven", "annelysia", "")
    ]
    words = [
        "sea",
        "hill",
        "boat",
        "cat",
        "tea",
        "rain",
        "lamp",
        "road",
        "山",
        "海",
        "雨",
        "猫",
        "茶",
    ]
    own_ids = {scope: set() for scope in scopes}
    for _ in range(20):
        scope = rng.choice(scopes)
        message = say(" ".join(rng.choices(words, k=6)), conversation=rng.choice("ab"))
        if rng.random() < 0.15 and own_ids[scope]:
            gone = rng.choice(sorted(own_ids[scope]))
            store.forget_messages(scope, [gone])
            own_ids[scope].discard(gone)
        else:
            store.remember(scope, [message])
            own_ids[scope].add(message.message_id)
    for scope in scopes:
        hits = store.recall(scope, " ".join(words) + " 上次 yesterday", k=50)
        assert {hit.memory.message_id for hit in hits} <= own_ids[scope]
        assert {memory.message_id for memory in store.list_memories(scope)} == own_ids[scope]


def test_threads_remember_and_recall_at_once(store, scope):
    faults = []

    def work(n):
        try:
            for step in range(6):
                # Every thread hears the same messages, and one of its own.
                store.remember(
                    scope,
                    [
                        message_at(f"same{step}", f"boat {step}"),
                        message_at(f"own{n}-{step}", f"lamp {n} {step}"),
                    ],
                )
                store.recall(scope, f"boat {step}")
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(store.list_memories(scope)) == 6 + 4 * 6
    assert sum("boat" in text for text in texts(store, scope, "boat", k=50)) == 6


def message_at(identity, text):
    return MemoryInput(identity, "t", "user", "x", text, 1_715_000_000.0)


def test_what_was_just_said_is_found_before_the_index_has_it(open_store, scope, say, monkeypatch):
    store = open_store()
    store.remember(scope, [say("the first")])
    store._index_writer.flush()
    gate = threading.Event()
    write = store._index.add_all
    monkeypatch.setattr(store._index, "add_all", lambda *args: gate.wait(60) and write(*args))
    store.remember(scope, [say("a marmalade cat")])
    assert texts(store, scope, "marmalade")[0] == "a marmalade cat"
    gate.set()


@pytest.mark.parametrize("harm", ["removed", "overwritten"])
def test_a_lost_or_damaged_index_is_made_anew_from_the_rows(open_store, scope, say, tmp_path, harm):
    store = open_store()
    store.remember(scope, [say("a marmalade cat"), say("我住在杭州")])
    store.close()
    if harm == "removed":
        shutil.rmtree(tmp_path / "index")
    else:
        for path in (tmp_path / "index").rglob("*"):
            if path.is_file():
                path.write_bytes(b"\0 damaged")
    again = open_store()
    assert texts(again, scope, "marmalade")[0] == "a marmalade cat"
    assert len(again.list_memories(scope)) == 3
    again._index_writer.flush()
    assert len(again._index.ids(next(iter(again._checked)))) == 3


WRITER = """
import sys, time
from elysia.memory.base import MemoryInput, MemoryScope
from elysia.memory.long_term import open_memory
from elysia.store.database import open_database
from pathlib import Path
database = open_database(sys.argv[1])
store = build(database, Path(sys.argv[2]))
for n in range(10_000):
    store.remember(Scope("ann", "elysia"), [Heard(f"m{n}", "t", "user", "x", f"boat number {n}", 1e9 + n)])
    print(n, flush=True)
"""


def test_killed_while_it_remembers_it_keeps_all_that_was_remembered(
    open_store, scope, database, url, tmp_path
):
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(tmp_path / "index")],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    last = -1
    for line in child.stdout:
        last = int(line)
        if last == 25:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    store = open_store()
    message_ids = {memory.message_id for memory in store.list_memories(scope)}
    assert {f"m{n}" for n in range(last + 1)} <= message_ids
    found_messages = {hit.memory.message_id for hit in store.recall(scope, "boat", k=100)}
    assert found_messages == message_ids  # those that the index had not got when it was killed, too
    assert store.remember(scope, [message_at("new", "one more boat")])


class FailingEmbedder:
    """An embedder whose model is gone after some texts."""

    name, dimensions = "failing", 2

    def __init__(self):
        self.broken = False

    def embed(self, texts, *, question=False):
        if self.broken:
            raise RuntimeError("the model is gone")
        return [[1.0, 0.0] for _ in texts]


def test_with_a_failing_embedder_words_go_on_and_it_is_said_once(open_store, scope, say, caplog):
    embedder = FailingEmbedder()
    store = open_store(embedder=embedder)
    store.remember(scope, [say("a marmalade cat")])
    store._index_writer.flush()
    embedder.broken = True
    with caplog.at_level("WARNING"):
        for _ in range(3):
            assert texts(store, scope, "marmalade")[0] == "a marmalade cat"
        store.remember(scope, [say("a lemon cake")])
        store._index_writer.flush()
        assert "a lemon cake" in texts(store, scope, "lemon")
    assert len([line for line in caplog.messages if "cannot be searched" in line]) == 1


def test_another_extractor_can_be_put_in(open_store, scope, say):
    store = open_store(
        extractor=lambda message: (
            [UserFact("colour", "likes green")] if "green" in message.text else []
        )
    )
    store.remember(scope, [say("green is the best"), say("我叫林晓")])
    assert facts(store, scope) == {"likes green"}


def test_an_extractor_that_fails_costs_no_turn(open_store, scope, say, caplog):
    def broken(message):
        raise ValueError("no model")

    store = open_store(extractor=broken)
    assert [memory.text for memory in store.remember(scope, [say("我叫林晓")])] == ["我叫林晓"]
    assert "no model" in caplog.text


def test_known_gives_the_newest_first_and_no_more_than_asked(store, scope, say):
    store.remember(scope, [say(f"boat {n}") for n in range(5)])
    assert [memory.text for memory in store.list_memories(scope, limit=2)] == ["boat 4", "boat 3"]
    assert time.time() > store.list_memories(scope, kind="turn")[0].at


def test_texts_of_many_scopes_are_written_at_once(open_store, scope, say, monkeypatch):
    store = open_store()
    scopes = [MemoryScope(scope.user, f"guest {number}") for number in range(12)]
    for other in scopes:
        store.recall(other, "boats")  # the first call of a scope looks after its index
    writes = []
    write = store._index.add_all
    monkeypatch.setattr(store._index, "add_all", lambda parts: writes.append(parts) or write(parts))
    for other in scopes:
        store.remember(other, [say(f"a marmalade cat of {other.character}")])
    store._index_writer.flush()
    assert len(writes) < len(scopes) / 2
    for other in scopes:
        assert texts(store, other, "marmalade") == [f"a marmalade cat of {other.character}"]


def test_a_memory_without_memories_says_nothing_of_its_index(open_store, scope, caplog):
    with caplog.at_level("INFO"):
        assert open_store().recall(scope, "boats") == []
    assert "rebuilt" not in caplog.text


def test_a_greeting_recalls_nothing_and_greetings_stand_beside_no_answer(open_store, scope, say):
    store = open_store()
    store.remember(
        scope,
        [say("早上好！"), say("早上好呀，想我了吗", role="assistant"), say("谢谢你，晚安。"),
         say("我在花店打工，店名叫半夏"), say("嗯嗯", role="assistant")],
    )  # fmt: skip
    assert store.recall(scope, "早上好呀") == []
    found_texts = texts(store, scope, "我打工的花店叫什么？")
    assert found_texts[0].startswith("我在花店打工")
    assert not {"早上好！", "谢谢你，晚安。", "嗯嗯"} & set(found_texts)
    # Who asks with their words, asks for them.
    assert "谢谢你，晚安。" in texts(store, scope, "我哪天和你说过晚安？")


def test_where_nothing_comes_near_nothing_is_recalled(open_store, scope, say):
    store = open_store()
    store.remember(scope, [say(f"boat number {n} sails to the island") for n in range(12)])
    assert texts(store, scope, "which boat sails?")
    assert texts(store, scope, "巧克力蛋糕怎么做") == []


def test_the_reasons_of_a_recall_are_codes_and_read_in_both_languages(store, scope, say):
    store.remember(scope, [say("我住在北京"), say("我搬到上海了")])
    hit = store.recall(scope, "我住在哪里？")[0]
    kinds = [reason.kind for reason in hit.reasons]
    assert ReasonKind.SUBJECT_FACT in kinds and ReasonKind.OUTDATED not in kinds
    assert str(hit.explanation).endswith("a fact of home")
    assert hit.explanation.render("zh").endswith("关于 home 的事实")
