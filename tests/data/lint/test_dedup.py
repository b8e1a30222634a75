"""What is kept of rows stays small, and finds them again."""

from elysia.data.lint.dedup import (
    ASK_BYTES,
    TEXT_BYTES,
    FirstSeenTable,
    NearDuplicateIndex,
    RowFingerprint,
    RowLocation,
    build_fingerprint,
    hash_text,
)


def test_every_hash_is_found_where_it_was_first_seen():
    table = FirstSeenTable()
    for number in range(5000):
        location = RowLocation(number % 3 - 1, number + 1, number)
        assert table.add(hash_text(str(number)), location) is None
        assert table.add(hash_text(str(number)), RowLocation(9, 9, 9)) == location
    assert len(table) == 5000
    assert table.find(hash_text("4999")) == RowLocation(0, 5000, 4999)
    assert table.find(hash_text("none")) is None


def test_hashes_that_want_one_slot_are_told_apart():
    table = FirstSeenTable()
    for number in range(6):
        table.add(number << 40, RowLocation(0, number, number))
    assert [table.find(number << 40).row for number in range(6)] == list(range(6))


def test_a_row_takes_less_than_two_hundred_bytes():
    index, rows = NearDuplicateIndex(), 20_000
    for number in range(rows):
        signature = hash_text(str(number)).to_bytes(8, "big") * ((TEXT_BYTES + ASK_BYTES) // 8)
        index.add(RowFingerprint(hash_text(str(number)), signature), RowLocation(0, number, number))
    table = index.exact
    arrays = (table.hashes, table.slots, table.files, table.lines, table.rows, index.signed)
    size = sum(part.itemsize * len(part) for part in arrays) + len(index.signatures)
    assert size / rows < 150


def test_a_row_that_is_nearly_an_earlier_row_is_reported_with_the_most_similar():
    text = "今天早上我先去花房浇水，又把新到的球根种进盆里，最后坐在门口喝了一杯很甜的桃子茶。"
    index = NearDuplicateIndex()
    for number, row in enumerate([text, "另外一件事情和这一句话没有什么关系。", text + "嗯"]):
        location = RowLocation(0, number + 1, number + 1)
        assert index.add(build_fingerprint(row, "问"), location) is None
    (pair,) = index.find_near()
    assert (pair.later.row, pair.earlier.row) == (3, 1) and pair.similarity >= 0.8
    same = build_fingerprint(f" {text} ", "问")
    assert index.add(same, RowLocation(0, 9, 9)) == RowLocation(0, 1, 1)
    assert build_fingerprint(" ", "") is None
