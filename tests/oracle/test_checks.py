"""The judgement itself: histories made by hand, each with one thing wrong, or with one excuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import cast

import pytest

from tests.oracle.checks import is_stalled, judge, misstated, ranges, unbalanced
from tests.oracle.history import Books, Delivery, History, Life, Promise, Read, RouteHistory, Span, StreamName
from tests.oracle.records import Altered, Key, key_of, payload, text_of

WEB = StreamName("web-1", "stdout")
PROMISES: list[Promise] = ["exactly once", "at least once", "confirmed"]


def key(number: int, name: StreamName = WEB) -> Key:
    return Key(*name, number)


class Story:
    """Ten records, one a second from 0 s on, on the way to one route."""

    def __init__(self, promise: Promise, read: Read = "file") -> None:
        self.history = History()
        self.route = self.history.routes["out"] = RouteHistory("out", promise)
        # Up from before the first record.
        self.history.daemon_down.append(Span(0.0, 0.0))
        for number in range(10):
            assert self.history.next_key(*WEB) == key(number)
            self.history.write(key(number), 100, read, float(number))

    def arrive(
        self, numbers: Sequence[int], at: float = 10.0, *, turn: int = 1, sure: bool = True
    ) -> Delivery:
        delivery = Delivery(turn, at, sure)
        for number in numbers:
            self.history.arrive("out", text_of(key(number), "x"), WEB, delivery)
        return delivery

    def down(self, begin: float, end: float, *, abrupt: bool = False) -> None:
        self.history.daemon_down.append(Span(begin, end, abrupt))

    def life(self, begin: float, said: Books, end: float = math.inf) -> None:
        """A daemon that ran so long, and what it said when it was asked last."""
        asked = min(end, 30.0)
        if self.history.lives:
            self.down(self.history.lives[-1].end, begin)
        self.history.lives.append(Life(begin, end, asked, asked, {"out": said}))

    def gone(self, before: int, at: float) -> None:
        self.history.written[WEB].gone.append((before, at))

    def kinds(self) -> list[tuple[str, Key | None]]:
        return [(violation.kind, violation.key) for violation in judge(self.history)]


# --- what every route must do -------------------------------------------------------------------------


@pytest.mark.parametrize("promise", PROMISES)
def test_nothing_is_wrong_where_everything_came_once_and_in_order(promise: Promise) -> None:
    story = Story(promise)
    story.arrive(range(10))
    assert story.kinds() == []


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("number", [0, 4, 9])
def test_a_record_that_is_missing_is_lost(promise: Promise, number: int) -> None:
    story = Story(promise)
    story.arrive([other for other in range(10) if other != number])
    assert story.kinds() == [("lost", key(number))]


def test_a_stream_of_which_nothing_came_is_lost() -> None:
    story = Story("exactly once")
    story.arrive(range(10))
    other = StreamName("web-1", "stderr")
    story.history.write(key(0, other), 100, "file", 3.0)
    assert story.kinds() == [("lost", key(0, other))]


@pytest.mark.parametrize("promise", PROMISES)
def test_a_record_that_comes_twice_though_it_was_acknowledged_is_doubled(promise: Promise) -> None:
    story = Story(promise)
    story.arrive(range(10))
    story.arrive([3], at=20.0, turn=2)
    assert story.kinds() == [("doubled", key(3))]


@pytest.mark.parametrize("promise", PROMISES)
def test_records_that_changed_places_are_reordered(promise: Promise) -> None:
    story = Story(promise)
    story.arrive([0, 1, 3, 2, 4, 5, 6, 7, 8, 9])
    assert story.kinds() == [("reordered", key(2))]


@pytest.mark.parametrize("promise", PROMISES)
def test_what_a_cut_has_cost_may_come_with_a_repetition_over_plain_tcp(promise: Promise) -> None:
    story = Story(promise)
    story.arrive([0, 1, 4, 5])
    story.arrive(range(2, 10), at=12.0, turn=2)
    reordered = ("reordered", key(2)) in story.kinds()
    assert reordered == (promise != "confirmed")


def test_what_was_refused_the_first_time_may_come_with_a_repetition() -> None:
    story = Story("at least once")
    story.arrive([*range(4), *range(5, 8)], at=18.0)
    story.route.refused.add(key(4))
    story.down(18.5, 19.0, abrupt=True)
    story.arrive([4, 5, 6, 7, 8, 9], at=20.0, turn=2)
    assert story.kinds() == []
    story.route.refused.clear()
    assert story.kinds() == [("reordered", key(4))]


def test_what_came_in_parts_is_stored_as_a_whole() -> None:
    story = Story("at least once")
    part = story.arrive(range(5), at=10.0)
    part.done_at = math.inf
    story.down(18.0, 19.0, abrupt=True)
    story.arrive(range(10), at=20.0, turn=2)
    assert story.kinds() == []
    part.done_at = 14.0
    assert story.kinds() == [("doubled", key(0))]


def test_streams_have_no_order_among_each_other() -> None:
    story = Story("exactly once")
    other = StreamName("web-1", "stderr")
    story.history.write(key(0, other), 100, "file", 0.0)
    delivery = story.arrive(range(10))
    story.history.arrive("out", text_of(key(0, other), ""), other, delivery)
    assert story.kinds() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + " ",
        lambda text: text.replace("payload", "Payload"),
        lambda text: text.replace(" 9 ", " 8 "),
        lambda text: text + "\n" + text,
        lambda text: "",
    ],
)
def test_a_text_that_was_changed_is_altered_and_its_record_lost(change: Callable[[str], str]) -> None:
    story = Story("at least once")
    delivery = story.arrive(range(9))
    story.history.arrive("out", change(text_of(key(9), "payload")), WEB, delivery)
    # With the number of another record it is not that record either.
    assert story.kinds() == [("altered", None), ("lost", key(9))]


def test_a_record_that_is_said_to_come_from_another_stream_is_altered() -> None:
    story = Story("at least once")
    delivery = story.arrive(range(9))
    story.history.arrive("out", text_of(key(9), ""), StreamName("web-1", "stderr"), delivery)
    assert story.kinds() == [("altered", key(9))]


@pytest.mark.parametrize("invented", [key(10), Key("nobody", "stdout", 0)])
def test_a_record_that_nobody_wrote_is_invented(invented: Key) -> None:
    story = Story("at least once")
    delivery = story.arrive(range(10))
    story.history.arrive("out", text_of(invented, ""), None, delivery)
    assert story.kinds() == [("invented", invented)]


def test_what_was_read_and_not_accepted_has_not_arrived() -> None:
    story = Story("at least once")
    story.arrive(range(9))
    assert story.history.arrive("out", text_of(key(9), ""), WEB, None) == key(9)
    assert story.kinds() == [("lost", key(9))]


# --- what may come twice ------------------------------------------------------------------------------


def test_into_a_file_nothing_may_come_twice_whatever_happened() -> None:
    story = Story("exactly once")
    story.arrive(range(10), sure=False)
    story.down(10.1, 12.0, abrupt=True)
    story.arrive([9], at=20.0)
    assert story.kinds() == [("doubled", key(9))]


@pytest.mark.parametrize("promise", ["at least once", "confirmed"])
def test_what_the_daemon_may_not_have_heard_of_may_come_again_in_order(promise: Promise) -> None:
    story = Story(promise)
    story.arrive(range(5))
    story.arrive([5, 6, 7], at=11.0, turn=2, sure=False)
    story.arrive([5, 6, 7, 8, 9], at=12.0, turn=3)
    assert story.kinds() == []


def test_what_came_shortly_before_a_kill_may_come_again_and_no_more() -> None:
    story = Story("at least once")
    story.arrive([0, 1, 2, 3], at=5.0)
    story.arrive(range(4, 10), at=10.0, turn=2)
    story.down(10.2, 12.0, abrupt=True)
    story.arrive([4, 5, 6, 7, 8, 9], at=13.0, turn=3)
    assert story.kinds() == []
    story.arrive([3], at=13.0, turn=4)
    assert story.kinds() == [("doubled", key(3))]


def test_an_end_in_order_makes_nothing_come_again() -> None:
    story = Story("at least once")
    story.arrive(range(10), at=10.0)
    story.down(10.2, 12.0)
    story.arrive([9], at=13.0, turn=2)
    assert story.kinds() == [("doubled", key(9))]


@pytest.mark.parametrize("abrupt", [True, False])
def test_an_end_forgets_what_could_not_be_stored_for_long(abrupt: bool) -> None:
    story = Story("at least once")
    story.arrive(range(10), at=10.0)
    story.down(30.0, 32.0, abrupt=abrupt)
    story.arrive(range(10), at=33.0, turn=2)
    assert story.kinds() == [("doubled", key(0))]
    story.history.unstored.append(Span(9.0, 29.0))
    assert story.kinds() == []


def test_a_disk_that_fills_while_the_daemon_ends_takes_its_last_checkpoints() -> None:
    story = Story("at least once")
    story.history.lives.append(Life(0.0, 30.5))
    story.arrive(range(10), at=29.0)
    story.down(30.0, 32.0)
    story.arrive(range(10), at=33.0, turn=2)
    assert story.kinds() == [("doubled", key(0))]
    story.history.unstored.append(Span(30.6, 31.5))  # it had ended before that
    assert story.kinds() == [("doubled", key(0))]
    story.history.unstored.append(Span(30.2, 31.5))
    assert story.kinds() == []


def test_an_old_connection_that_is_read_late_is_no_other_order() -> None:
    story = Story("confirmed")
    story.arrive([0, 1, 2], at=3.0, turn=1)
    story.down(3.1, 4.0, abrupt=True)
    story.arrive([3, 4, 5], at=5.0, turn=2)
    story.arrive([3, 4], at=6.0, turn=1, sure=False)
    story.arrive([6, 7, 8, 9], at=10.0, turn=2)
    assert story.kinds() == []


@pytest.mark.parametrize("sheds", [False, True])
def test_what_was_dropped_may_come_with_a_repetition(sheds: bool) -> None:
    """A kill has taken back that it was dropped, and what was delivered behind it."""
    story = Story("at least once")
    story.route.sheds = sheds
    story.arrive([0, 1, 5], at=6.0)
    story.down(7.0, 8.0, abrupt=True)
    story.arrive(range(1, 10), at=10.0, turn=2)
    assert story.kinds() == ([] if sheds else [("reordered", key(2))])
    story.arrive([11 - 9], at=11.0, turn=3)  # again, and for no reason
    assert ("doubled", key(2)) in story.kinds()


# --- what may be missing ------------------------------------------------------------------------------


def test_what_a_receiver_refused_for_good_need_not_arrive() -> None:
    story = Story("at least once")
    story.arrive([0, 1, 2, 4, 5, 6, 7, 8, 9])
    story.route.refused.add(key(3))
    assert story.kinds() == []


def test_what_was_gone_before_the_daemon_was_back_may_be_lost_but_is_said() -> None:
    story = Story("exactly once")
    story.down(4.5, 8.0)
    story.gone(6, at=7.0)
    story.arrive([0, 1, 2, 3, 4, 6, 7, 8, 9])
    story.history.announced.add(("another route", "web-1"))
    assert story.kinds() == [("lost in silence", key(5))]
    story.history.announced.add(("out", "web-1"))
    assert story.kinds() == []


def test_of_a_container_that_was_removed_meanwhile_nothing_can_be_said() -> None:
    story = Story("exactly once")
    story.down(4.5, 12.0)
    story.gone(10, at=9.5)
    story.history.written[WEB].removed = True
    story.arrive(range(5))
    assert story.kinds() == []


def test_what_is_taken_away_while_the_daemon_runs_is_no_excuse() -> None:
    story = Story("exactly once")
    story.gone(10, at=9.5)
    story.history.written[WEB].removed = True
    story.arrive(range(5))
    assert story.kinds() == [("lost", key(5))]


@pytest.mark.parametrize("announced", [False, True])
def test_by_api_what_was_written_right_before_a_removal_may_be_lost(announced: bool) -> None:
    for read, removed, missing, expected in (
        ("api", True, 9, []),
        ("api", True, 8, [("lost", key(8))]),
        ("file", True, 9, [("lost", key(9))]),
        ("api", False, 9, [("lost", key(9))]),
    ):
        story = Story("at least once", cast(Read, read))
        story.gone(10, at=9.5)
        story.history.written[WEB].removed = removed
        if announced:
            story.history.announced.add(("out", "web-1"))
        story.arrive([number for number in range(10) if number != missing])
        assert story.kinds() == expected


def test_what_was_rotated_away_at_once_is_not_what_a_removal_took() -> None:
    story = Story("at least once", "api")
    story.gone(8, at=7.1)
    story.gone(10, at=9.5)
    story.history.written[WEB].removed = True
    story.arrive([0, 1, 2, 3, 4, 5, 6, 8, 9])
    assert story.kinds() == [("lost", key(7))]


def test_a_daemon_that_was_down_much_later_is_no_excuse_for_a_route_that_flowed() -> None:
    story = Story("exactly once")
    story.gone(10, at=9.5)
    story.history.announced.add(("out", "web-1"))
    story.arrive([0, 1, 2, 3, 4, 6, 7, 8, 9])
    story.down(60.0, 62.0, abrupt=True)
    assert story.kinds() == [("lost", key(5))]
    # It would be one, had the route been hindered all the time between.
    story.route.disturbed.append(Span(5.0, 59.0))
    assert story.kinds() == []


def test_a_daemon_that_starts_while_there_is_no_engine_holds_no_logs_yet() -> None:
    story = Story("exactly once")
    story.down(4.5, 5.5)
    story.gone(6, at=9.0)
    story.history.announced.add(("out", "web-1"))
    story.arrive([0, 1, 2, 3, 4, 6, 7, 8, 9])
    assert story.kinds() == [("lost", key(5))]
    story.history.engine_down.append(Span(5.0, 8.0))
    assert story.kinds() == []


def test_an_engine_that_is_back_excuses_only_what_is_read_from_it() -> None:
    for read, expected in ("api", []), ("file", [("lost", key(5))]):
        story = Story("exactly once", read)  # type: ignore[arg-type]
        story.history.engine_down.append(Span(4.5, 8.0))
        story.history.announced.add(("out", "web-1"))
        story.gone(6, at=7.0)
        story.arrive([0, 1, 2, 3, 4, 6, 7, 8, 9])
        assert story.kinds() == expected


def test_a_daemon_that_never_came_back_excuses_nothing() -> None:
    story = Story("exactly once")
    story.gone(10, at=9.5)
    story.history.announced.add(("out", "web-1"))
    story.down(10.0, math.inf)
    story.arrive(range(9))
    assert story.kinds() == [("lost", key(9))]


def test_over_plain_tcp_a_cut_costs_at_most_the_kernels_buffer_and_what_is_said() -> None:
    story = Story("confirmed")
    story.arrive([0, 1, 2, 3, 4, 9])
    story.route.cuts, story.route.cut_bytes = 2, 200
    assert story.kinds() == []
    story.route.cuts = 1
    assert story.kinds() == [("lost", key(5))]
    story.route.cuts, story.route.unconfirmed = 2, 4
    assert story.kinds() == []
    story.route.unconfirmed = 3
    assert story.kinds() == [("lost", key(5))]


def test_what_a_cut_has_cost_need_not_be_said_when_it_is_gone_from_the_engine_as_well() -> None:
    story = Story("confirmed")
    story.route.cuts, story.route.cut_bytes = 1, 200
    story.arrive([0, 1, 2, 3, 6, 7, 8, 9])
    story.down(7.5, 12.0)
    story.gone(6, at=11.0)
    assert story.kinds() == []
    story.route.cuts = 0
    assert story.kinds() == [("lost", key(4))]
    story.history.announced.add(("out", "web-1"))
    assert story.kinds() == []


@pytest.mark.parametrize("promise", ["exactly once", "at least once"])
def test_elsewhere_cuts_are_no_excuse(promise: Promise) -> None:
    story = Story(promise)
    story.route.cuts, story.route.cut_bytes = 10, 1000
    story.arrive(range(9))
    assert story.kinds() == [("lost", key(9))]


# --- live, and the books ------------------------------------------------------------------------------


def test_a_route_that_nothing_hinders_must_go_on() -> None:
    story = Story("at least once")
    story.arrive(range(5), at=4.5)
    assert not is_stalled(story.history, story.route, 14.0)
    assert is_stalled(story.history, story.route, 14.1)
    other = story.history.routes["other"] = RouteHistory("other", "at least once")
    other.disturbed.append(Span(4.0))
    assert is_stalled(story.history, story.route, 20.0), "another's hanging is no excuse"
    story.route.disturbed.append(Span(4.0))
    assert not is_stalled(story.history, story.route, 1000.0)
    story.route.disturbed[-1].end = 1000.0
    assert not is_stalled(story.history, story.route, 1010.0)
    assert is_stalled(story.history, story.route, 1010.1)


def books(**parts: int) -> Books:
    names = ("received", "delivered", "duplicates", "rejected", "dropped", "queued", "in_flight")
    nothing = dict.fromkeys(names, 0)
    return Books(**{**nothing, **parts})


def test_books_must_add_up() -> None:
    good = books(received=10, delivered=4, duplicates=1, rejected=2, queued=2, in_flight=1)
    bad = books(received=10, delivered=4, duplicates=1, rejected=2, queued=2)
    assert [violation.route for violation in unbalanced({"good": good, "bad": bad})] == ["bad"]


@pytest.mark.parametrize(
    ("promise", "said", "wrong"),
    [
        ("exactly once", books(received=9, delivered=9, rejected=1), 0),
        ("exactly once", books(received=9, delivered=8, duplicates=1, rejected=1), 0),
        ("exactly once", books(received=9, delivered=10, rejected=1), 1),
        ("exactly once", books(received=9, delivered=8, rejected=1), 1),
        ("confirmed", books(received=9, delivered=10, rejected=1), 0),
        ("confirmed", books(received=9, delivered=8, rejected=1), 1),
        ("at least once", books(received=9, delivered=9), 1),
        ("at least once", books(received=9, delivered=9, rejected=2), 1),
        ("at least once", books(received=9, delivered=9, rejected=1, queued=1), 1),
        ("at least once", books(received=9, delivered=9, rejected=1, in_flight=1), 1),
        ("exactly once", books(received=10, delivered=9, rejected=1, dropped=1, shed=1), 0),
        ("exactly once", books(received=11, delivered=9, rejected=1, dropped=2, shed=2), 1),
    ],
)
def test_at_the_end_books_say_what_receivers_say(promise: Promise, said: Books, wrong: int) -> None:
    story = Story(promise)
    story.arrive([*range(9), 8])
    story.route.refused |= {key(9), key(3)}  # one of them was taken after all
    assert len(list(misstated(story.history, {"out": said}))) == wrong


def test_what_a_route_drops_as_it_was_told_to_need_not_arrive_but_is_counted() -> None:
    story = Story("exactly once")
    story.arrive([0, 1, 2, 6, 7, 8, 9])
    story.route.sheds = True
    story.life(0.0, books(delivered=7, dropped=3, shed=3))
    assert story.kinds() == []
    story.history.lives[-1].books = {"out": books(delivered=7, dropped=2, shed=2)}
    assert story.kinds() == [("lost", key(5))]


def test_what_a_route_dropped_before_its_daemon_ended_is_counted_by_nobody() -> None:
    story = Story("at least once")
    story.arrive([0, 1, 4, 5, 6, 7, 9], at=9.5)
    story.route.sheds = True
    story.life(0.0, books(dropped=1, shed=1), end=6.0)
    story.life(6.5, books(delivered=7, dropped=1, shed=1))
    assert story.kinds() == []
    story.history.lives[-1].books = {"out": books(delivered=7)}
    assert story.kinds() == [("lost", key(8))]


def test_what_was_dropped_need_not_be_said_when_it_is_gone_from_the_engine_as_well() -> None:
    story = Story("at least once")
    story.arrive([0, 1, 2, 3, 6, 7, 8, 9])
    story.down(7.5, 12.0)
    story.gone(6, at=11.0)
    assert story.kinds() == [("lost in silence", key(4))]
    story.route.sheds = True
    story.life(0.0, books(delivered=8, dropped=2, shed=2))
    assert story.kinds() == []
    story.history.lives[-1].books = {"out": books(delivered=8, dropped=1, shed=1)}
    assert story.kinds() == [("lost", key(5))]


def test_over_plain_tcp_what_was_dropped_and_what_a_cut_has_cost_may_both_be_missing() -> None:
    story = Story("confirmed")
    story.arrive([0, 1, 2, 6, 7, 8, 9])
    story.route.sheds = True
    story.route.cuts, story.route.cut_bytes = 1, 100
    story.life(0.0, books(delivered=7, dropped=2, shed=2))
    assert story.kinds() == []
    story.route.cuts = 0
    assert story.kinds() == [("lost", key(5))]


@pytest.mark.parametrize(
    ("sheds", "said", "wrong"),
    [
        (True, {"dropped": 2, "shed": 2}, False),
        (False, {"dropped": 2, "shed": 2}, True),
        (True, {"dropped": 2, "shed": 1}, True),
        (False, {"dropped": 1}, True),
    ],
)
def test_nothing_is_dropped_by_a_route_that_is_not_told_to_nor_for_another_reason(
    sheds: bool, said: dict[str, int], wrong: bool
) -> None:
    story = Story("at least once")
    story.arrive(range(10))
    story.route.sheds = sheds
    story.life(0.0, books(delivered=10, **said), end=12.0)
    assert [kind for kind, _ in story.kinds()] == ["dropped unasked"] * wrong


@pytest.mark.parametrize(
    ("promise", "said", "wrong"),
    [
        ("at least once", books(delivered=6), False),
        ("at least once", books(delivered=4, duplicates=1), False),  # one of which it may not have heard
        ("at least once", books(delivered=3, in_flight=2), False),
        ("at least once", books(delivered=4), True),
        ("at least once", books(delivered=7), True),
        ("confirmed", books(delivered=4), True),
        ("confirmed", books(delivered=7), False),
        ("exactly once", books(delivered=4), False),
    ],
)
def test_each_daemon_has_counted_what_was_accepted_from_it(
    promise: Promise, said: Books, wrong: bool
) -> None:
    story = Story(promise)
    story.arrive(range(4), at=5.0)
    story.arrive(range(4, 9), at=20.0, turn=2)
    story.arrive([9], at=20.5, turn=3, sure=False)
    # Of what has come just now it need not have heard.
    story.arrive([], at=29.5, turn=4)
    story.life(0.0, books(delivered=4), end=10.0)
    story.life(10.5, said)
    assert [kind for kind, _ in story.kinds()] == ["miscounted"] * wrong


def test_what_came_just_before_it_was_asked_a_daemon_may_have_counted_or_not() -> None:
    for delivered, wrong in (0, False), (10, False), (11, True):
        story = Story("at least once")
        story.arrive(range(10), at=29.0)
        story.life(0.0, books(delivered=delivered))
        assert [kind for kind, _ in story.kinds()] == ["miscounted"] * wrong


@pytest.mark.parametrize(("roomy", "wrong"), [(True, 1), (False, 0)])
def test_where_a_spool_has_no_room_what_is_read_by_api_may_be_gone_before_it_is_read(
    roomy: bool, wrong: int
) -> None:
    story = Story("at least once", "api")
    story.arrive([0, 1, 2, 3, 4, 8, 9])
    story.route.disturbed.append(Span(4.5, 8.0))
    story.route.roomy = roomy
    story.gone(8, at=7.5)
    story.history.announced.add(("out", "web-1"))
    assert story.kinds() == [("lost", key(5))] * wrong


# --- what all of it rests on --------------------------------------------------------------------------


def test_a_records_text_says_which_it_is_whatever_its_payload() -> None:
    random = Random(1)
    for number in range(300):
        text = text_of(key(number), payload(random, long=True))
        assert "\n" not in text
        assert key_of(text.encode().decode()) == key(number)
        with pytest.raises(Altered):
            key_of(text[:-1] + ("y" if text[-1] == "x" else "x"))


def test_payloads_are_of_all_kinds() -> None:
    random = Random(1)
    payloads = [payload(random, long=True) for _ in range(3000)]
    assert "" in payloads
    assert max(map(len, payloads)) > 16_384
    for character in '\x00\t\r\x1b\x7f\u2028\ufeff🙂\\"]':
        assert any(character in text for text in payloads), ascii(character)


def test_numbers_are_shown_as_ranges() -> None:
    assert ranges([3, 4, 5, 9, 1]) == "1, 3-5, 9"
    assert ranges(range(0, 40, 2), most=2) == "0, 2, …"
