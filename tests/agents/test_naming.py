from __future__ import annotations

from agents.naming import name_clusters


def test_names_are_what_is_said_of_one_cluster_and_not_of_the_others():
    said = [["A red apple, lying."] * 3, ["A green apple, lying."] * 2 + ["A red apple."]]
    assert name_clusters(said)[0] == "red" and name_clusters(said)[1] == "green"


def test_known_values_win():
    said = [["The suit is hearts."] * 3, ["Spades, clearly, not hearts.", "spades", "spades"], ["none"]]
    names = name_clusters(said, values=["hearts", "spades"])
    assert names[:2] == ["hearts", "spades"]


def test_names_are_unique_and_never_empty():
    said = [["same words"], ["same words"], [""], [], ["same words"]]
    names = name_clusters(said)
    assert len(set(names)) == 5 and all(names)
    assert len(set(name_clusters([["hearts"]] * 3, values=["hearts"]))) == 3


def test_the_criterions_own_words_name_nothing():
    assert name_clusters([["The suit is red."], ["The suit is blue."]], criterion="suit") == ["red", "blue"]
