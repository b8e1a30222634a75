"""What must hold of conversations holds over PostgreSQL, too: the same tests, another database."""

from __future__ import annotations

import pytest

from tests.chat.test_group import (  # noqa: F401
    test_a_branch_that_was_left_is_forgotten_and_comes_back,
    test_the_named_answer_in_order_with_their_reasons,
)
from tests.chat.test_kill import test_no_message_that_was_sent_is_lost_by_a_kill  # noqa: F401
from tests.chat.test_service import (  # noqa: F401
    test_a_card_of_one_user_is_nobody_elses,
    test_a_deleted_message_takes_what_follows_with_it,
    test_a_message_is_answered_and_kept,
    test_a_page_that_leaves_and_comes_back_sees_the_reply_from_its_first_word,
    test_a_removed_conversation_is_gone_even_while_it_is_written,
    test_a_reply_is_made_anew_beside_the_first,
    test_an_edited_message_begins_a_branch_and_the_old_one_stays,
    test_another_process_may_watch_and_stop_a_reply,
    test_characters_that_databases_have_no_place_for_cost_no_message,
    test_conversations_are_found_by_title_and_words,
    test_many_replies_at_once_use_the_slots_and_no_more,
    test_nothing_of_another_user_is_found_by_its_id,
    test_replies_whose_process_died_are_marked_at_the_next_start,
    test_stop_keeps_what_was_written_and_frees_the_engine,
    test_what_no_longer_fits_is_summed_up_and_rolls_on,
)


@pytest.fixture
def url(postgres):
    """An empty database of PostgreSQL."""
    return postgres
