"""What is kept of rows stays small, and finds them again."""

from elysia.data.lint.prints import ASKS, SIZE, Print, mark_of, print_of
from elysia.data.lint.twins import Marks, Place, Twins


def test_every_mark_is_found_where_it_was_first_seen():
    marks = Marks()
    for number in range(5000):
        place = Place(number % 3 - 1, number + 1, number)
        assert marks.add(mark_of(str(number)), place) is None
        assert marks.add(mark_of(str(number)), Place(9, 9, 9)) == place
    assert len(marks) == 5000
    assert marks.find(mark_of("4999")) == Place(0, 5000, 4999)
    assert marks.find(mark_of("none")) is None


def test_marks_that_want_one_slot_are_told_apart():
    marks = Marks()
    for number in range(6):
        marks.add(number << 40, Place(0, number, number))
    assert [marks.find(number << 40).row for number in range(6)] == list(range(6))


def test_a_row_takes_less_than_two_hundred_bytes():
    twins, rows = Twins(), 20_000
    for number in range(rows):
        signature = mark_of(str(number)).to_bytes(8, "big") * ((SIZE + ASKS) // 8)
        twins.add(Print(mark_of(str(number)), signature), Place(0, number, number))
    marks = twins.exact
    arrays = (marks.marks, marks.slots, marks.files, marks.lines, marks.rows, twins.signed)
    kept = sum(part.itemsize * len(part) for part in arrays) + len(twins.signatures)
    assert kept / rows < 150


def test_a_row_that_is_nearly_an_earlier_one_is_told_with_the_most_alike():
    text = "今天早上我先去花房浇水，又把新到的球根种进盆里，最后坐在门口喝了一杯很甜的桃子茶。"
    twins = Twins()
    for number, some in enumerate([text, "另外一件事情和这一句话没有什么关系。", text + "嗯"]):
        assert twins.add(print_of(some, "问"), Place(0, number + 1, number + 1)) is None
    (pair,) = twins.near()
    assert (pair.later.row, pair.earlier.row) == (3, 1) and pair.alike >= 0.8
    assert twins.add(print_of(f" {text} ", "问"), Place(0, 9, 9)) == Place(0, 1, 1)
    assert print_of(" ", "") is None
