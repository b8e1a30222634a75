"""Files of every kind become text; hostile ones become a sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from elysia.core.errors import KnowledgeError
from elysia.knowledge import sandbox
from elysia.knowledge.readers import READERS
from elysia.knowledge.sandbox import read_file
from tests.knowledge import files
from tests.knowledge.files import ROSE


def titles(source):
    return [(heading.level, heading.title) for heading in source.headings]


def test_text_is_taken_as_it_is():
    assert read_file("a.txt", f"{ROSE}\r\n第二行".encode()).text == f"{ROSE}\n第二行\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16", "utf-16-le", "big5"])
def test_text_is_read_in_its_encoding(encoding):
    text = "在花園裡，她種了一朵玫瑰。The rose is pink, and the sea is near.\n" * 3
    assert read_file("a.txt", text.encode(encoding)).text == text


def test_nul_bytes_and_controls_are_left_out():
    assert read_file("a.md", b"one\x00 two\x1b[31m three\n" + b"more text " * 9).text.startswith(
        "one two[31m three\n"
    )


def test_markdown_has_headings_outside_of_code():
    text = "# 花房 #\n\n```\n# no\n```\n\n玫瑰\n---\n\n- item\n---\n#tag\n## Second"
    assert titles(read_file("a.md", text.encode())) == [(1, "花房"), (2, "玫瑰"), (2, "Second")]


def test_a_table_is_read_row_by_row_with_its_columns_names():
    source = read_file("a.csv", "花,颜色,\n玫瑰,粉色,多刺\n\n百合,,\n".encode("gb18030"))
    assert source.rows
    assert source.text == "花: 玫瑰; 颜色: 粉色; 多刺\n花: 百合\n"
    assert read_file("a.tsv", b'name\tsaid\nrose\t"red,\nthen pink"\n').text == (
        "name: rose; said: red, then pink\n"
    )


def test_a_page_gives_what_a_reader_would_see():
    page = f"""<!doctype html><html><head><title>no</title><style>p{{}}</style></head><body>
    <!-- hidden --><h2>花 房</h2><p>{ROSE}<b>真的</b>，<br>第二行</p><script>alert(1)</script>
    <div>before<p>inner</p>after</div><ul><li>one</li><li>two</li></ul>
    <table><tr><th>花</th><th>色</th></tr><tr><td>玫瑰</td><td>粉</td></tr></table>
    <pre>a
  b</pre></body></html>"""
    source = read_file("a.html", page.encode())
    assert titles(source) == [(2, "花 房")]
    lines = [line for line in source.text.splitlines() if line]
    assert lines == [
        "花 房",
        f"{ROSE}真的，",
        "第二行",
        "before",
        "inner",
        "after",
        "- one",
        "- two",
        "花 | 色",
        "玫瑰 | 粉",
        "a",
        "  b",
    ]


@pytest.mark.parametrize("charset", ["gb2312", "utf-8", "nonsense"])
def test_a_page_is_read_in_the_encoding_that_it_has(charset):
    page = f'<meta charset="{charset}"><p>{ROSE}种了一朵花，她很喜欢。</p>'
    assert ROSE in read_file("a.htm", page.encode("gb18030")).text


def test_a_book_is_read_in_its_own_order():
    source = read_file("a.epub", files.epub())
    assert titles(source) == [(1, "第一章"), (1, "第二章")]
    assert source.text.index(ROSE) < source.text.index("后来下雨了")


def test_a_word_document_has_headings_and_tables():
    source = read_file("花房.docx", files.docx())
    assert titles(source) == [(1, "花房"), (2, "玫瑰")]
    assert [line for line in source.text.splitlines() if line] == [
        "花房",
        "玫瑰",
        ROSE,
        "茶会",
        "星期五 | 下午四点",
    ]


def test_a_pdf_has_pages():
    source = read_file("a.PDF", files.pdf("The rose is pink.", "The sea is\nnear."))
    assert len(source.pages) == 2
    assert "pink" in source.text[: source.pages[1]]
    assert "near" in source.text[source.pages[1] :]


def test_a_pdf_that_only_forbids_printing_is_read():
    assert "rose" in read_file("a.pdf", files.pdf("The rose is pink.", password="")).text


HOSTILE = {
    "empty.txt": (b"", "is empty"),
    "blank.md": (b" \r\n\x00\x00\n", "is empty"),
    "nothing.html": (b"<html><body><script>x()</script></body></html>", "no text in it"),
    "header.csv": (b"a,b,c\n", "no text in it"),
    "picture.txt": (b"\x89PNG\r\n\x1a\n" + os.urandom(4000), "no text in any encoding"),
    "really.txt": (files.pdf("x"), "name it so"),
    "really.csv": (files.docx(), "name it so"),
    "none.pdf": (b"This is no PDF at all", "no PDF, whatever its name"),
    "cut.pdf": (files.pdf("The rose is pink.")[:200], "damaged"),
    "garbage.pdf": (b"%PDF-1.7\n" + os.urandom(5000), "damaged"),
    "locked.pdf": (files.pdf("secret", password="open sesame"), "encrypted"),
    "scan.pdf": (files.pdf("", ""), "2 pages hold pictures and no text"),
    "none.docx": (b"hello", "no docx, whatever its name"),
    "old.docx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "Word's old format"),
    "cut.docx": (files.docx()[:-200], "damaged"),
    "zip.docx": (files.zipped({"a.txt": "a"}), "is missing"),
    "bomb.docx": (files.bomb("word/document.xml"), "unpacks to more than"),
    "bomb.epub": (files.bomb("META-INF/container.xml"), "unpacks to more than"),
    "liar.docx": (files.liar("[Content_Types].xml", 300), "damaged"),
    "liar.epub": (files.liar("META-INF/container.xml", 300), "damaged"),
    "none.epub": (files.zipped({"a.txt": "a"}), "container.xml' is missing"),
    "entities.epub": (
        files.epub(**{"META-INF/container.xml": "<!DOCTYPE a [<!ENTITY b 'bb'>]><a>&b;</a>"}),
        "names no book",
    ),
    "climbing.epub": (
        files.epub(**{"OEBPS/book.opf": files.PACKAGE.replace("two.x", "../../../etc/x")}),
        None,
    ),
    "locked.epub": (
        files.epub(**{"META-INF/encryption.xml": '<EncryptedData URI="OEBPS/two.xhtml"/>'}),
        "locked by its seller",
    ),
    "big.txt": (b"a" * (sandbox.MAX_FILE + 1), "more than 32 MB"),
    "long.txt": ("花".encode() * 4_000_001, "more than 4,000,000 characters"),
    "a.exe": (b"MZ", "is not read here"),
    "noending": (b"text", "is not read here"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_is_refused_with_a_sentence(name):
    content, sentence = HOSTILE[name]
    if sentence is None:
        assert "后来" not in read_file(name, content).text  # a path out of the book leads nowhere
        return
    with pytest.raises(KnowledgeError, match=sentence) as caught:
        read_file(name, content)
    assert str(caught.value).startswith(name)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("name", ["scan.pdf", "bomb.docx", "empty.txt"])
def test_a_refusal_is_a_sentence_in_chinese_too(name):
    with pytest.raises(KnowledgeError) as caught:
        read_file(name, HOSTILE[name][0])
    sentence = caught.value.render("zh")
    assert sentence.startswith(f"{name}：") and sentence.endswith("。")
    assert not re.search(r"[a-z]{3,}", sentence.removeprefix(name))


@pytest.mark.parametrize(
    "name",
    "../up.txt|/etc/passwd.txt|a\\b.txt|C:x.txt|| |.hidden.txt|a\nb.txt|a\x00.txt|\u202egnp.txt|\ud800.txt|{long}.txt".format(
        long="a" * 201
    ).split("|"),
)
def test_a_name_that_is_no_files_name_is_refused(name):
    with pytest.raises(KnowledgeError, match="cannot be a document's name"):
        read_file(name, b"text")


def test_a_file_that_takes_too_much_memory_ends_its_child_alone(monkeypatch):
    monkeypatch.setattr(sandbox, "MEMORY_BYTES", 120 << 20)
    with pytest.raises(KnowledgeError, match="more memory than is granted"):
        read_file("wide.html", b"<p>x" * 100_000)


def test_a_file_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 1)
    page = b"<table><tr><td>" * 60_000 + b"x"
    with pytest.raises(KnowledgeError, match="than is granted"):
        read_file("slow.html", page * 6)


def test_the_child_has_its_limits_before_it_looks_at_the_file():
    """Ten lines that ask for more than is granted, in place of a reader."""
    script = (
        "import sys; from elysia.knowledge import sandbox, readers\n"
        "import types; evil = types.ModuleType('evil')\n"
        "def read(content): return bytearray(2 << 30)\n"
        "evil.read = read; sys.modules['evil'] = evil\n"
        "readers.READERS['.x'] = 'evil:read'; sys.argv = ['', '.x', '5', str(1 << 30)]; sandbox.main()\n"
    )
    child = subprocess.run([sys.executable, "-c", script], input=b"", capture_output=True)
    assert json.loads(child.stdout) == {"fault": "knowledge.too_large", "params": {}}
    assert "more memory than is granted" in str(KnowledgeError("knowledge.too_large"))


def test_every_kind_names_a_reader_that_is_there():
    import importlib

    for reader in READERS.values():
        module, function = reader.split(":")
        assert callable(getattr(importlib.import_module(module), function))
