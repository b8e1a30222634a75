"""Lint finds what is wrong, where it is, and lets clean rows be."""

import json
import random
from pathlib import Path

import pytest

from elysia.core.errors import DataError
from elysia.data.lint.consistency import parse_fact_value
from elysia.data.lint.lint_report import format_findings, to_html, to_json
from elysia.data.lint.lint_run import lint_files
from elysia.data.lint.located_rows import RowSource
from elysia.data.lint.text_rules import (
    find_cut_off,
    find_mixed_scripts,
    find_personal_data,
    find_placeholders,
)
from elysia.data.process_pool import ProcessPool

ROOT = Path(__file__).parents[3]


def turn(ask, reply):
    return {"conversation": [{"input": ask, "output": reply}]}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def rules(path, **options):
    (report,) = lint_files([path], **options)
    return [(f.rule, f.line, f.row) for f in report.findings.in_order()]


GOOD = [turn(f"第{n}天你去了哪里呀？", f"那天我在{w}待了一整个下午，看了好久的云。") for n, w in
        enumerate(["海边", "山顶的茶馆", "旧书店", "河对岸", "姑姑家里", "车站旁的面包房"])]  # fmt: skip


def test_clean_rows_have_no_findings(tmp_path):
    assert rules(jsonl(tmp_path / "a.jsonl", GOOD)) == []


@pytest.mark.parametrize(
    "rule, row",
    [
        ("empty-text", turn("在吗？", "")),
        ("empty-text", {"conversation": [{"input": "在吗？", "output": None}]}),
        ("schema", {"conversation": []}),
        ("no-format", {"a": "b"}),
        ("other-format", {"instruction": "说句话", "output": "好的，今天也要开心。"}),
        ("role-order", {"messages": [{"role": "user", "content": "一"}, {"role": "user", "content": "二"},
                                     {"role": "assistant", "content": "三。"}]}),
        ("role-order", {"messages": [{"role": "assistant", "content": "三。"}]}),
        ("lost-character", turn("你好", "今天天气\ufffd真好。")),
        ("lost-character", turn("你好", "真好\ud83d。")),
        ("mojibake", turn("你好", "你好呀".encode().decode("latin-1"))),
        ("mojibake", turn("你好", "锟斤拷，你好。")),
        ("control-character", turn("你好", "早\u200b上好。")),
        ("placeholder", turn("你是谁？", "我是{{name}}。")),
        ("placeholder", turn("Who?", "Hi, I'm [User 1's name].")),
        ("other-assistant", turn("讲讲你", "作为一个人工智能语言模型，我没有感情。")),
        ("other-assistant", turn("你是谁？", "我是ChatGPT，有什么可以帮你？")),
        ("other-assistant", turn("Tell me", "As an AI language model, I cannot.")),
        ("personal-data", turn("怎么找你？", "打13812345678就好。")),
        ("personal-data", turn("怎么找你？", "写信到lin.xiao@greenhouse.cn就好。")),
        ("personal-data", turn("证件号？", "11010519491231002X。")),
        ("cut-off", turn("讲个故事", "从前有一座山，山上有座庙。庙里住着一个老和尚和一个小和尚，老和尚对小和尚")),
        ("mixed-script", turn("去哪", "我们一起去看看那個時候的风景，说说话吧。")),
        ("markup", turn("你好", "好的<br>马上来。")),
        ("markup", turn("你好", "好的<|im_end|>")),
    ],
)  # fmt: skip
def test_a_fault_is_found_at_its_line(tmp_path, rule, row):
    path = tmp_path / "a.jsonl"
    text = json.dumps(row) + "\n"  # ASCII: half a surrogate pair is no UTF-8
    good = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in GOOD)
    path.write_text(
        good + text + good.splitlines(True)[0].replace("第0天", "又一个午后里"), "utf-8"
    )
    hits = rules(path)
    assert (rule, len(GOOD) + 1, len(GOOD) + 1) in hits
    assert all(line == len(GOOD) + 1 for _, line, _ in hits)


def test_a_broken_line_is_found_and_the_rest_is_read(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", GOOD)
    path.write_text('{"conversation": [\n' + path.read_text("utf-8") + "\ufffd", "utf-8")
    (report,) = lint_files([path])
    assert report.sizes.rows == len(GOOD)
    assert [f.line for f in report.findings.in_order() if f.rule == "not-readable"] == [1, 8]


def test_rows_of_an_array_have_their_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([*GOOD, turn("你好", "我是{{name}}。")], indent=2, ensure_ascii=False)
    )
    (where,) = [line for rule, line, _ in rules(path) if rule == "placeholder"]
    rows = path.read_text("utf-8").split("\n")
    assert rows[where - 1].strip() == "{"
    assert "{{name}}" in "".join(rows[where : where + 8])


def test_an_array_is_streamed_in_pieces_of_any_size(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD, indent=1, ensure_ascii=False))
    whole = list(RowSource.of(path).rows())
    for size in (1, 7, 64):
        monkeypatch.setattr("elysia.data.readers.json_array.CHUNK", size)
        assert list(RowSource.of(path).rows()) == whole
    assert [row.value for row in whole] == GOOD


def test_an_array_cut_short_is_a_finding(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD)[:-30])
    (report,) = lint_files([path])
    assert report.findings.counts["not-readable"] == 1
    assert "middle of its array" in report.findings.findings[0].text


def test_other_encodings_are_read_and_told(tmp_path):
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in GOOD)
    for encoding in ("gb18030", "utf-16", "utf-16-le"):
        path = tmp_path / f"{encoding}.jsonl"
        path.write_bytes(text.encode(encoding))
        assert rules(path) == [("encoding", 0, 0)]


def test_one_bad_byte_is_found_in_its_row(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", GOOD)
    raw = path.read_bytes().split(b"\n")
    raw[2] = raw[2].replace("云".encode(), b"\xe4\xba")
    path.write_bytes(b"\n".join(raw))
    assert rules(path) == [("lost-character", 3, 3)]


def test_rows_that_are_the_same_or_nearly_are_found(tmp_path):
    long = "今天早上我先去花房浇水，又把新到的球根种进盆里，最后坐在门口喝了一杯很甜的桃子茶。"
    rows = [
        *GOOD,
        turn("今天做了些什么呢？", long),
        GOOD[1],
        turn("今天做了些什么呢？", long.replace("很甜", "好甜")),
    ]
    assert rules(jsonl(tmp_path / "a.jsonl", rows)) == [
        ("duplicate", 8, 8),
        ("near-duplicate", 9, 9),
    ]


def test_many_questions_with_one_answer_are_no_duplicates(tmp_path):
    reply = "我是爱莉希雅，很高兴在这座开满花的玻璃房子里认识你，请多多关照哦。"
    rows = [
        turn(ask, reply)
        for ask in ("你是谁呀？", "请问怎么称呼您？", "介绍一下自己吧", "哪位在说话？")
    ]
    assert rules(jsonl(tmp_path / "a.jsonl", rows)) == []


def test_a_row_that_is_held_out_is_a_leak(tmp_path):
    held = jsonl(tmp_path / "held.jsonl", [GOOD[0]])
    woven = {"conversation": [*GOOD[3]["conversation"], *GOOD[0]["conversation"]]}
    rows = [GOOD[1], GOOD[0], woven]
    hits = rules(jsonl(tmp_path / "a.jsonl", rows), heldout=[held])
    assert hits == [("leak", 2, 2), ("leak", 3, 3)]


def test_another_answer_about_the_character_is_a_contradiction(tmp_path):
    rows = [turn("你叫什么名字？", "我叫爱莉希雅，请多关照。"), turn("你是谁？", "我是爱莉希雅哦。"),
            turn("What's your name?", "I'm Elysia."), turn("你叫啥", "我叫小红。"),
            turn("你几岁了？", "我二十岁。"), turn("你今年多大？", "今年20岁啦。"), turn("你多大呀", "我今年31岁。")]  # fmt: skip
    assert rules(jsonl(tmp_path / "a.jsonl", rows)) == [
        ("contradiction", 4, 4),
        ("contradiction", 7, 7),
    ]
    assert parse_fact_value("name", "我是由谁做的") == ""


def test_texts_that_are_well_are_let_be():
    for text in (
        "第一项：\n- 苹果\n- 梨",
        "短短一句没有句号",
        "他说：“好。”",
        "好的。我们走吧😊",
        "第一句。第二句。\n1. 苹果",
    ):
        assert list(find_cut_off(text)) == []
    assert list(find_placeholders("{{char}}看着{{user}}。")) == []
    assert list(find_personal_data("订单号 20240101123456789，写信给 name@example.com")) == []
    assert list(find_mixed_scripts("乾隆皇帝著書立說，後來")) == []


def test_reports_show_no_markup_of_the_data(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [turn("<script>alert(1)</script><b>", "好\x1b[31m。")])
    reports = lint_files([path])
    assert "<script>" not in to_html(reports)
    assert all("\x1b" not in line for _, line in format_findings(reports[0]))
    value = json.loads(to_json(reports))
    assert value["files"][0]["counts"]["control-character"] == 1
    assert value["errors"] == 0


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="There is no dataset file"):
        lint_files([tmp_path / "none.json"])


PLANTS = {
    "empty-text": lambda a, r: turn(a, "  "),
    "lost-character": lambda a, r: turn(a, r[:5] + "\ufffd" + r[5:]),
    "mojibake": lambda a, r: turn(a, r.encode().decode("latin-1")),
    "control-character": lambda a, r: turn(a, r[:4] + "\u200b" + r[4:]),
    "placeholder": lambda a, r: turn(a, "{{name}}" + r),
    "other-assistant": lambda a, r: turn(a, "作为一个AI语言模型，" + r),
    "personal-data": lambda a, r: turn(a, r + "我的电话是13912345678。"),
    "markup": lambda a, r: turn(a, r + "&nbsp;<br/>"),
    "mixed-script": lambda a, r: turn(a, r + "這樣說過的话，后来他们都认真记着。"),
    "role-order": lambda a, r: {
        "messages": [{"role": "user", "content": a}, {"role": "user", "content": r}]
    },
    "cut-off": lambda a, r: turn(
        a, "昨天傍晚下了一场很大的雨。" + r.rstrip("。！？!?~～♪") + "，然后我们就一起"
    ),
    "no-format": lambda a, r: {"said": a, "answered": r},
    "other-format": lambda a, r: {"instruction": a, "output": r},
    "schema": lambda a, r: {"conversation": [], "note": a},
    "near-duplicate": lambda a, r: turn(
        LONG_ASK, LONG.replace("很甜", f"{random.Random(a).choice('好真特最挺太')}甜")
    ),
    "contradiction": lambda a, r: turn(
        "你叫什么名字？", f"我叫小{random.Random(a).choice('红兰竹梅雪')}。"
    ),
    "leak": turn,
}
LONG_ASK = "今天做了些什么呢？"
LONG = "今天早上我先去花房浇水，又把新到的球根种进盆里，最后坐在门口喝了一杯很甜的桃子茶。"


def plant(folder):
    """A file with 200 faults, the kind of each by line, and the rows that are held out of it."""
    clean = json.loads((ROOT / "data" / "elysia.json").read_text("utf-8"))
    chosen = [
        r
        for r in clean
        if len(r["conversation"]) == 1 and not r["conversation"][0]["output"].isascii()
    ]
    rng = random.Random(0)
    rng.shuffle(chosen)
    rows, planted, held = [json.dumps(turn(LONG_ASK, LONG), ensure_ascii=False)], {}, []
    for number, row in enumerate(chosen[:1400], start=1):
        if number % 7 == 3:
            kinds = [*PLANTS, "duplicate", "not-readable"]
            kind = kinds[len(planted) % len(kinds)]
            ask, reply = row["conversation"][0]["input"], row["conversation"][0]["output"]
            rules_of = {
                "duplicate": rows[1],
                "not-readable": '{"conversation": [{"input',
            }.get(kind)
            planted[number + 1] = kind
            rows.append(rules_of or json.dumps(PLANTS[kind](ask, reply), ensure_ascii=False))
            held += [row] if kind == "leak" else []
        else:
            rows.append(json.dumps(row, ensure_ascii=False))
    path = folder / "planted.jsonl"
    path.write_text("\n".join(rows), "utf-8")
    return path, planted, jsonl(folder / "held.jsonl", held)


def test_of_two_hundred_planted_faults_95_percent_are_found_and_2_percent_of_clean_rows_flagged(
    tmp_path,
):
    path, planted, heldout = plant(tmp_path)
    assert len(planted) == 200 and set(planted.values()) == {*PLANTS, "duplicate", "not-readable"}
    hits = {(line, rule) for rule, line, _ in rules(path, heldout=[heldout])}
    hit = sum((line, kind) in hits for line, kind in planted.items())
    wrong = {line for line, _ in hits if line not in planted}
    missed = [kind for line, kind in planted.items() if (line, kind) not in hits]
    print(
        f"{hit} of {len(planted)} planted found, {len(wrong)} of 1201 clean rows flagged; missed: {missed}"
    )
    assert hit >= 190, missed
    assert len(wrong) <= 0.02 * 1200


def test_lint_finds_what_the_real_files_are_known_for(shared_data):
    instruct, persona = shared_data / "instruct", shared_data / "persona"
    expected = {
        instruct / "lf_dpo_zh_demo.json": {"lost-character": 6, "duplicate": 11},
        instruct / "lf_alpaca_zh_demo.json": {"duplicate": 8},
        instruct / "lf_alpaca_en_demo.json": {"duplicate": 14},
        persona / "emollm_ruozhiba.jsonl": {"wrong-ending": 1},
    }
    for path, counts in expected.items():
        (report,) = lint_files([path])
        assert {rule: report.findings.counts[rule] for rule in counts} == counts
    (report,) = lint_files([persona / "spc_test_en.csv"])
    assert report.findings.counts["placeholder"] >= 24


def test_the_report_is_the_same_however_many_processes_judge(tmp_path, monkeypatch):
    monkeypatch.setattr("elysia.data.lint.row_checker.ROWS_PER_BATCH", 50)
    path, _, heldout = plant(tmp_path)
    deep = '{"conversation": ' + "[" * 5000 + "]" * 5000 + "}"
    array = tmp_path / "array.json"
    array.write_text(
        "[" + ",\n".join(path.read_text("utf-8").split("\n")[:9]) + f",{deep}]", "utf-8"
    )
    table = tmp_path / "table.csv"
    table.write_text("instruction,input,output\n说,,好的<br>呀。\n说,好\n", "utf-8")
    assert same_report([path, array, table], [heldout])


def test_the_report_on_real_files_is_the_same_however_many_processes_judge(shared_data):
    instruct, persona = shared_data / "instruct", shared_data / "persona"
    files = [instruct / "lf_dpo_zh_demo.json", persona / "emollm_ruozhiba.jsonl"]
    assert same_report(files, [instruct / "lf_identity.json"])


def same_report(files, heldout):
    alone, together = (lint_files(files, heldout, processes=count) for count in (0, 2))
    assert sum(report.findings.counts.total() for report in alone) > 10
    return to_json(alone) == to_json(together) and to_html(alone) == to_html(together)


def test_a_large_file_is_judged_in_processes_and_a_small_one_is_not(tmp_path, monkeypatch):
    pools = []

    class RecordingPool(ProcessPool):
        def __init__(self, function, processes):
            pools.append(processes)
            super().__init__(function, 0)

    monkeypatch.setattr("elysia.data.lint.lint_run.ProcessPool", RecordingPool)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    path = jsonl(tmp_path / "a.jsonl", GOOD)
    lint_files([path])
    monkeypatch.setattr("elysia.data.process_pool.MIN_BYTES", 100)
    lint_files([path])
    lint_files([path], count=lambda text: len(text.split()))
    assert pools == [1, 3, 1]
