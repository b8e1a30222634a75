"""What is kept of rows stays small, and finds them again."""

from elysia.data.lint.dedup import (
    ASK_BYTES,
    TEXT_BYTES,
    Fingerprint,
    FirstSeenTable,
    NearDuplicateIndex,
    RowLocation,
    build_fingerprint,
    hash_text,
)


def test_every_mark_is_found_where_it_was_first_seen():
    marks = FirstSeenTable()
    for number in range(5000):
        place = RowLocation(number % 3 - 1, number + 1, number)
        assert marks.add(hash_text(str(number)), place) is None
        assert marks.add(hash_text(str(number)), RowLocation(9, 9, 9)) == place
    assert len(marks) == 5000
    assert marks.find(hash_text("4999")) == RowLocation(0, 5000, 4999)
    assert marks.find(hash_text("none")) is None


def test_marks_that_want_one_slot_are_told_apart():
    marks = FirstSeenTable()
    for number in range(6):
        marks.add(number << 40, RowLocation(0, number, number))
    assert [marks.find(number << 40).row for number in range(6)] == list(range(6))


def test_a_row_takes_less_than_two_hundred_bytes():
    twins, rows = NearDuplicateIndex(), 20_000
    for number in range(rows):
        signature = hash_text(str(number)).to_bytes(8, "big") * ((TEXT_BYTES + ASK_BYTES) // 8)
        twins.add(Fingerprint(hash_text(str(number)), signature), RowLocation(0, number, number))
    marks = twins.exact
    arrays = (marks.marks, marks.slots, marks.files, marks.lines, marks.rows, twins.signed)
    kept = sum(part.itemsize * len(part) for part in arrays) + len(twins.signatures)
    assert kept / rows < 150


def test_a_row_that_is_nearly_an_earlier_one_is_told_with_the_most_alike():
    text = "今天早上我先去花房浇水，又把新到的球根种进盆里，最后坐在门口喝了一杯很甜的桃子茶。"
    twins = NearDuplicateIndex()
    for number, some in enumerate([text, "另外一件事情和这一句话没有什么关系。", text + "嗯"]):
        assert (
            twins.add(build_fingerprint(some, "问"), RowLocation(0, number + 1, number + 1)) is None
        )
    (pair,) = twins.near()
    assert (pair.later.row, pair.earlier.row) == (3, 1) and pair.alike >= 0.8
    assert twins.add(build_fingerprint(f" {text} ", "问"), RowLocation(0, 9, 9)) == RowLocation(
        0, 1, 1
    )
    assert build_fingerprint(" ", "") is None
