"""What must hold of documents holds over PostgreSQL, too: the same tests, another database."""

from __future__ import annotations

import pytest

from tests.knowledge.test_document_store import (  # noqa: F401
    database,
    knowledge,
    test_a_citation_counts_characters_beyond_the_basic_plane_as_one,
    test_a_database_that_fails_leaves_the_index_as_it_was,
    test_a_shelf_follows_its_folder,
    test_a_span_is_found_and_cited_to_the_character,
    test_an_index_that_is_lost_is_made_from_the_database,
    test_documents_are_listed_by_name,
    test_one_of_that_name_is_replaced_and_only_what_changed_is_embedded,
    test_shelves_see_nothing_of_each_other,
    test_threads_add_and_search_at_once,
    test_two_programs_share_it,
    test_what_a_kill_left_in_the_index_is_swept_out,
    test_what_is_removed_is_found_no_more,
)


@pytest.fixture
def url(postgres):
    """An empty database of PostgreSQL."""
    return postgres
