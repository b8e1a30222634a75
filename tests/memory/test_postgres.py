"""What must hold of memories holds over PostgreSQL, too: the same tests, another database."""

from __future__ import annotations

import pytest

from tests.memory.test_long_term import (  # noqa: F401
    test_a_forgotten_fact_takes_what_it_replaced_and_does_not_come_back,
    test_a_forgotten_turn_takes_its_facts_and_what_they_had_replaced,
    test_a_message_heard_twice_is_remembered_once,
    test_a_newer_fact_takes_the_older_ones_place,
    test_days_and_ends_of_time_are_asked_for,
    test_deleted_messages_leave_nothing_and_the_fact_before_them_counts_again,
    test_forgetting_everything_leaves_the_other_scopes,
    test_nobody_reaches_another_scopes_memory_by_its_id,
    test_the_answer_beside_the_match_is_found,
    test_threads_remember_and_recall_at_once,
    test_what_is_forgotten_is_gone_from_the_database_and_the_index,
    test_what_was_said_is_found_in_either_script_and_by_other_words,
)


@pytest.fixture
def url(postgres):
    """An empty database of PostgreSQL."""
    return postgres
