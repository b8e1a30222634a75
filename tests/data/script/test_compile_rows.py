"""A script of our own, in every layout, becomes rows with no pair across scenes and every line
accounted for.
"""

import json
import random

import pytest

from elysia import cli
from elysia.core.errors import DataError
from elysia.core.persona import Persona
from elysia.data.formats.registry import xtuner
from elysia.data.script.compile_rows import CompileOptions, compile_lines
from elysia.data.script.script_reader import read_script

PLACES = ["温室", "码头", "旧书店", "山坡", "厨房", "车站", "屋顶", "集市"]


def big_play(scenes=64):
    """A play of many scenes with every layout of a line; scene n speaks of number n only."""
    rng, lines = random.Random(5), []
    for n in range(1, scenes + 1):
        head = [
            f"第{n}场 {rng.choice(PLACES)} 日",
            f"Scene {n}: the harbour",
            f"【场景：{rng.choice(PLACES)}】",
            "***",
            f"# {n}",
        ]
        lines += [head[n % 5], ""]
        lines += [
            f"（灯光亮起，第{n}天。）",
            f"阿砚：今天是第{n}天了吧？",
            f"小满（笑）：第{n}天，我一直数着呢。",
        ]
        if n % 3 == 0:
            lines += [
                f"Nova: Is it day {n}?",
                f"小满：「是的，第{n}天。」",
                f"  而且第{n}天的风最好。",
            ]
        if n % 4 == 0:
            lines += [f"阿砚「第{n}天也要走？」", f"满满：第{n}天不走。"]
        if n % 5 == 0:
            lines += ["", f"没有人说话，第{n}天就这样过去。", f"阿砚和小满：第{n}天快乐！"]
        if n % 7 == 0:
            lines += [f"阿砚：那么第{n}天再见。"]
        lines += [""]
        if n % 16 == 0:
            lines += ["第九十九场 空镜", "阿砚：这里没有小满。", "Nova: Nobody here.", ""]
    return lines


def compiled(tmp_path, text, name="script.txt", character="小满", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    lines, total = read_script(path)
    script = compile_lines(lines, CompileOptions(character, **options), name)
    assert total == script.total == len(script.used) + len(script.left_out)
    return script


def talk(row):
    return [(turn["input"], turn["output"]) for turn in row["conversation"]]


def test_sixty_scenes_of_every_layout_are_accounted_for_and_never_mixed(tmp_path):
    lines = big_play()
    script = compiled(tmp_path, "\n".join(lines), aliases=("满满",))
    assert script.total == sum(bool(line.strip()) for line in lines)
    assert script.scenes >= 64
    rows = [*script.train, *script.heldout]
    assert len(rows) == 64
    for row in rows:
        text = json.dumps(row["conversation"], ensure_ascii=False)
        days = {part.split("天")[0] for part in text.split("第")[1:]}
        assert len(days) == 1, text
        assert xtuner(row)
    assert not {r["scene"] for r in script.train} & {r["scene"] for r in script.heldout}
    assert len({r["scene"] for r in script.heldout}) == 6
    assert set(script.left_out.values()) == {
        "a scene heading", "nobody is named as its speaker", "several speak at once",
        "said after the character's last reply in the scene", "the character says nothing in the scene",
    }  # fmt: skip


def talks(scenes=64):
    """The lines of many scenes, (speaker, text); scene n speaks of day n only. None: nobody named."""
    for n in range(1, scenes + 1):
        yield [
            ("阿砚", f"今天是第{n}天了吧？"),
            ("小满", f"第{n}天，我一直数着呢。"),
            *([("Nova", f"第{n}天 already?"), ("小满", f"是的，第{n}天。")] if n % 3 == 0 else []),
            *([(None, f"风吹过第{n}天。"), ("阿砚", f"第{n}天再见。")] if n % 5 == 0 else []),
        ]


def clock(seconds, comma):
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{comma}00" + "0" * (
        comma == ","
    )


def timed():
    """(start in seconds, speaker, text): scenes are a minute and a half apart."""
    for n, scene in enumerate(talks()):
        for place, (who, text) in enumerate(scene):
            yield n * 90 + place, who, text


def as_srt():
    return "\n".join(
        f"{i}\n{clock(t, ',')} --> {clock(t + 1, ',')}\n{f'{who}：' if who else ''}{text}\n"
        for i, (t, who, text) in enumerate(timed(), 1)
    )


def as_ass():
    head = ASS.split("Dialogue:")[0]
    return head + "".join(
        f"Dialogue: 0,{clock(t, '.')},{clock(t + 1, '.')},Default,{who or ''},0,0,0,,{text}\n"
        for t, who, text in timed()
    )


def as_novel():
    lines = []
    for n, scene in enumerate(talks(), 1):
        lines += [f"第{n}章 花房", f"雾在第{n}天散了。"]
        lines += [f"{who}说：“{text}”" if who else f"“{text}”" for who, text in scene]
    return "\n".join(lines)


def as_chat():
    return json.dumps([
        {"from": who, "text": text, "date": 1_700_000_000 + 60 * t} for t, who, text in timed()
    ])  # fmt: skip


def as_csv():
    return "session,speaker,content\n" + "".join(
        f"{n},{who or ''},{text}\n" for n, scene in enumerate(talks()) for who, text in scene
    )


@pytest.mark.parametrize(
    "name, made_by",
    [("a.srt", as_srt), ("a.ass", as_ass), ("a.txt", as_novel), ("a.json", as_chat), ("a.csv", as_csv)],
)  # fmt: skip
def test_sixty_scenes_of_subtitles_novels_and_chats_are_accounted_for_and_never_mixed(
    tmp_path, name, made_by
):
    script = compiled(tmp_path, made_by(), name)  # which holds the account of lines
    count = sum(who is not None for scene in talks() for who, _ in scene)
    after = sum(scene[-1][1].endswith("再见。") for scene in talks())
    assert len(script.used) == count - after
    assert script.scenes == 64 and len(script.train) + len(script.heldout) == 64
    for row in [*script.train, *script.heldout]:
        text = json.dumps(row["conversation"], ensure_ascii=False)
        assert len({part.split("天")[0] for part in text.split("第")[1:]}) == 1, text
    assert not {r["scene"] for r in script.train} & {r["scene"] for r in script.heldout}
    assert len({r["scene"] for r in script.heldout}) == 6


def test_turns_aliases_names_and_directions(tmp_path):
    text = "第一场\n（清晨）\n阿砚：早。\nNova: Morning!\n小满（揉眼睛）：早呀。\n还有你。\n阿砚：走吧？\n满满：（点头）走。\n"
    (row,) = compiled(tmp_path, text, aliases=("满满",)).train
    assert talk(row) == [
        ("（清晨）\n阿砚：早。\nNova：Morning!", "（揉眼睛）早呀。\n还有你。"),
        ("阿砚：走吧？", "（点头）走。"),
    ]
    (row,) = compiled(
        tmp_path, text, aliases=("满满",), directions="drop", names="never", system="S"
    ).train
    assert talk(row) == [("早。\nMorning!", "早呀。\n还有你。"), ("走吧？", "走。")]
    assert row["conversation"][0]["system"] == "S"
    assert row["source"] == {"file": "script.txt", "lines": [3, 8]}


def test_what_the_character_says_first_has_no_question(tmp_path):
    script = compiled(tmp_path, "小满：有人吗？\n阿砚：我在。\n小满：太好了。\n")
    assert talk(script.train[0]) == [("我在。", "太好了。")]
    assert script.left_out == {1: "the character speaks before anybody else in the scene"}


def test_long_scenes_are_cut_into_rows_of_so_many_replies(tmp_path):
    text = "".join(f"阿砚：第{n}问？\n小满：第{n}答。\n" for n in range(7))
    script = compiled(tmp_path, text, turns=3)
    assert [len(row["conversation"]) for row in script.train] == [3, 3, 1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-be"])
def test_other_encodings_are_told_by_sight(tmp_path, encoding):
    script = compiled(tmp_path, "阿砚：早上好啊。\n小满：早，今天真暖和。\n".encode(encoding))
    assert talk(script.train[0]) == [("早上好啊。", "早，今天真暖和。")]


SRT = """1
00:00:01,000 --> 00:00:02,000
阿砚：早。

2
00:00:02,500 --> 00:00:03,000
<i>小满：早呀。</i>

3
00:00:03,100 --> 00:00:04,000
（海浪声）

4
00:01:00,000 --> 00:01:02,000
阿砚：晚上了。

5
00:01:02,000 --> 00:01:03,000
没有名字的一句

6
00:01:03,000 --> 00:01:05,000
[小满] 晚安。
"""
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:02.00,Default,阿砚,0,0,0,,{\\an8}早。
Comment: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,translator
Dialogue: 0,0:00:02.00,0:00:03.00,Default,小满,0,0,0,,早呀，\\N今天去哪？
"""


def test_subtitles_are_split_by_silence(tmp_path):
    script = compiled(tmp_path, SRT, "a.srt", heldout=0)
    assert [talk(row) for row in script.train] == [[("早。", "早呀。")], [("晚上了。", "晚安。")]]
    assert script.left_out == {
        3: "said after the character's last reply in the scene",
        5: "nobody is named as its speaker",
    }
    script = compiled(tmp_path, ASS, "a.ass")
    assert talk(script.train[0]) == [("早。", "早呀，\n今天去哪？")]
    assert script.left_out == {2: "a comment of the subtitles"}


def test_speech_of_a_novel_is_taken_where_its_speaker_is_named(tmp_path):
    text = """第一章 花房
天刚亮，雾还没散。
阿砚说：“今天要下雨了。”
“我带了伞。”小满轻声说，“两把。”
她笑道：“走吧。”
“可是路很远。”
阿砚问：“你累不累？”
小满回答：“不累。”
"""
    script = compiled(tmp_path, text, "n.txt")
    assert talk(script.train[0]) == [
        ("今天要下雨了。", "我带了伞。两把。"),
        ("你累不累？", "不累。"),
    ]
    assert sorted(script.left_out.values()) == [
        "a scene heading", "its speaker is uncertain", "its speaker is uncertain", "narration"]  # fmt: skip
    english = '"Where to?" asked Tom.\n"Home," said Nova.\n"Home it is," said Tom.\n"Good," Nova replied.\n'
    script = compiled(tmp_path, english, "e.txt", character="Nova")
    assert talk(script.train[0]) == [("Where to?", "Home,"), ("Home it is,", "Good,")]


def test_chat_logs_are_split_by_session_and_silence(tmp_path):
    log = {"messages": [
        {"from": "阿砚", "text": "在吗", "date": "2026-01-01T10:00:00"},
        {"from": "小满", "text": [{"type": "plain", "text": "在"}, "呀"], "date": "2026-01-01T10:00:09"},
        {"from": "小满", "text": "", "date": "2026-01-01T10:00:10"},
        {"from": "阿砚", "text": "吃了吗", "date": "2026-01-01T20:00:00"},
        {"from": "小满", "text": "吃啦", "date": "2026-01-01T20:01:00"},
    ]}  # fmt: skip
    script = compiled(tmp_path, json.dumps(log), "log.json", heldout=0)
    assert [talk(r) for r in script.train] == [[("在吗", "在呀")], [("吃了吗", "吃啦")]]
    assert script.left_out == {3: "the message has not a text"}
    script = compiled(
        tmp_path, "session,speaker,content\n1,阿砚,早\n1,小满,早呀\n2,小满,晚上好\n", "log.csv"
    )
    assert talk(script.train[0]) == [("早", "早呀")]
    assert script.scenes == 2


def test_bad_scripts_are_sentences(tmp_path):
    def fails(text, name, words):
        with pytest.raises(DataError, match=words):
            compiled(tmp_path, text, name)

    fails("阿砚：早。\n小曼：早呀。\n", "a.txt", "'小满' says nothing in it.*小曼")
    fails("一段没有人说话的文字。\n", "a.txt", "no line of the script names who speaks")
    fails("   \n", "a.txt", "is empty")
    fails("{", "a.json", "a.json: it is not JSON")
    fails("[" * 3000, "a.json", "not JSON")
    fails('[{"a": 1}]', "a.json", "no message in it has a sender")
    fails("hello", "a.srt", "no srt subtitles")
    with pytest.raises(DataError, match="no script"):
        read_script(tmp_path / "none.txt")


def test_the_verb_writes_rows_drafts_and_the_account(tmp_path, capsys):
    path, out = tmp_path / "play.txt", tmp_path / "out"
    path.write_text("\n".join(big_play()), "utf-8")
    words = [
        "data",
        "script",
        str(path),
        "--character",
        "小满",
        "--alias",
        "满满",
        "--output",
        str(out),
    ]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "used +" in shown
    account = json.loads((out / "report.json").read_text("utf-8"))
    assert account["lines"] == account["used"] + sum(account["left_out"].values())
    card = Persona.load(out / "card.json")
    assert card.name == "小满" and card.mes_example.startswith("<START>")
    assert card.elysia_extensions["aliases"] == ["满满"]
    book = json.loads((out / "lorebook.json").read_text("utf-8"))
    assert {"阿砚", "Nova"} <= {key for entry in book["entries"] for key in entry["keys"]}
    held = [json.loads(line) for line in (out / "heldout.jsonl").read_text("utf-8").splitlines()]
    days = [row["conversation"][0]["output"] for row in held]
    assert all(day not in (out / "card.json").read_text("utf-8") for day in days)
    left = (out / "left_out.jsonl").read_text("utf-8").splitlines()
    assert len(left) == sum(account["left_out"].values())
    assert (
        cli.main(
            ["data", "lint", str(out / "train.jsonl"), "--heldout", str(out / "heldout.jsonl")]
        )
        == 0
    )
    assert cli.main(words) == 0  # its own folder may be written anew
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").touch()
    assert cli.main([*words[:-1], str(tmp_path / "mine")]) == 1


def test_generate_data_takes_scripts_too(tmp_path):
    import subprocess
    import sys
    from pathlib import Path

    path = tmp_path / "a.txt"
    path.write_text("阿砚：早。\n小满：早呀。\n", "utf-8")
    root = Path(__file__).parents[3]
    words = [
        sys.executable,
        str(root / "data/generate_data.py"),
        "script",
        str(path),
        "--character",
        "小满",
    ]
    assert subprocess.run([*words, "--output", str(tmp_path / "out")]).returncode == 0
    assert (tmp_path / "out" / "train.jsonl").read_text("utf-8").count("\n") == 1
