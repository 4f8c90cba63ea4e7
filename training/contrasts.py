"""What a teacher is asked beside its walk, so that an agent sees what a good graph hides (beyond METHOD 8).

A walk through a good graph meets hardly anything that does not belong, and few clusters to compare: an agent that has
learnt from it alone says YES to all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from agents.conclusions import Conclusion
from agents.questions import Question, membership, merge
from storage.ledger import Answer
from training.teacher import Teacher, conclusion_of

NOISY_FROM = 3
"""Of so many representatives one may be wrong and the cluster is still plain."""
FAR = 0.3
"""Share of strangers that come from any other cluster, not from the nearest."""

Answers = dict[Question, Answer]


class Contrasts:
    """Questions about the clusters that a teacher has found."""

    def __init__(
        self,
        teacher: Teacher,
        clusters: Sequence[Sequence[str]],
        rows: Mapping[int, npt.NDArray[np.float32]],
        representatives: int,
        rng: np.random.Generator,
    ) -> None:
        """`clusters` are content hashes; `rows` has the (d,) unit row of each of their nodes, by its number."""
        self._teacher, self._clusters, self._k, self._rng = teacher, clusters, representatives, rng
        self._members = [(number, item) for number, cluster in enumerate(clusters) for item in cluster]
        self._home = {item: number for number, item in self._members}
        self._alike = np.zeros((0, 0))
        if len(clusters) > 1:
            centres = np.stack([np.mean([rows[teacher.node[item]] for item in c], 0) for c in clusters])
            self._alike = centres @ centres.T
            np.fill_diagonal(self._alike, -np.inf)

    async def wrong_representatives(
        self, told: Mapping[Question, Answer], share: float
    ) -> dict[Question, tuple[Answer, bool]]:
        """Ask a share of the memberships once more, one representative replaced by a node of another cluster.

        Returns each such question with its answer and whether it came out other than before.
        """
        rng = self._rng
        others = [sorted(self._home.keys() - set(members)) for members in self._clusters]
        asked = [question for question, answer in told.items() if conclusion_of(answer) is not Conclusion.UNKNOWN]
        many = [question for question in asked if len(question.items) > NOISY_FROM]
        chosen = sorted(rng.permutation(len(many))[: round(share * len(asked))].tolist())
        disturbed: dict[Question, Question] = {}
        for question in (many[number] for number in chosen):
            *shown, candidate = [item for _, item in question.items]
            strangers = [item for item in others[self._home[shown[0]]] if item != candidate]
            place = int(rng.integers(len(shown)))
            if strangers:
                shown[place] = strangers[int(rng.integers(len(strangers)))]
                wrong = membership(self._teacher.prompts, shown, [candidate])
                if wrong not in told:
                    disturbed[wrong] = question
        answers = await self._teacher.assess_all(disturbed)
        found: dict[Question, tuple[Answer, bool]] = {}
        for wrong, question in disturbed.items():
            verdicts = {conclusion_of(answers[wrong]), conclusion_of(told[question])}
            found[wrong] = answers[wrong], Conclusion.UNKNOWN not in verdicts and len(verdicts) == 2
        return found

    async def strangers(self, told: set[Question], yes: int, no: int, share: float) -> Answers:
        """Put nodes of other clusters to clusters until `share` of the memberships should be NO.

        Args:
            told: what was asked already. yes, no: how the memberships so far came out.
        """
        missing = min(yes, round(yes * share / (1 - share)) - no)
        if missing <= 0 or not len(self._alike):
            return {}
        asked: dict[Question, None] = {}
        for _ in range(missing):
            home, candidate = self._any_member()
            question = membership(self._teacher.prompts, self._some(self._clusters[self._away(home)]), [candidate])
            if question not in told:
                asked[question] = None
        return await self._teacher.assess_all(asked)

    async def merges(self, told: set[Question], count: int) -> Answers:
        """At most `count` questions about two clusters: parts of two that differ, and halves of one, in turn."""
        asked: dict[Question, None] = {}
        for number in range(max(0, count) if self._members else 0):
            home, _ = self._any_member()
            cluster = self._clusters[home]
            if number % 2 and len(self._alike):
                a, b = self._some(cluster), self._some(self._clusters[self._away(home)])
            elif len(cluster) > 1:
                each = min(self._k, len(cluster) // 2)
                drawn = self._some(cluster, 2 * each)
                a, b = drawn[:each], drawn[each:]
            else:
                continue
            if self._rng.random() < 0.5:
                a, b = b, a
            if (question := merge(self._teacher.prompts, a, b)) not in told:
                asked[question] = None
        return await self._teacher.assess_all(asked)

    def _any_member(self) -> tuple[int, str]:
        return self._members[int(self._rng.integers(len(self._members)))]

    def _away(self, home: int) -> int:
        """Another cluster, mostly the nearest."""
        if self._rng.random() < FAR:
            return int(self._rng.choice([c for c in range(len(self._clusters)) if c != home]))
        return int(self._alike[home].argmax())

    def _some(self, cluster: Sequence[str], count: int = 0) -> list[str]:
        return [cluster[k] for k in self._rng.permutation(len(cluster))[: count or self._k].tolist()]
