"""What an examination says about one subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lopsided.testing.nearest import Match
from lopsided.testing.probe import Answer, Loss, Side

Status = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """Says in words what was found about a subject, such as "float16".

    status: "fault" for what trains wrongly, or changes what it should not; "note" for what may surprise; else "ok".
    """

    subject: str
    status: Status
    text: str


@dataclass(frozen=True)
class Subject:
    """Holds a loss that is examined, its answer to `probe.batch`, and the nearest known loss."""

    loss: Loss
    logits: Tensor
    targets: Tensor
    answer: Answer
    match: Match

    @property
    def own_fault(self) -> Status:
        """Returns the status of what the gradient does wrong: a note if the published loss does it, too."""
        return "note" if self.match.same and not self.match.wrong else "fault"

    @property
    def sides(self) -> tuple[Side, Side]:
        """Returns positives and negatives, with the gradients that they got."""
        where = {target: self.targets == target for target in (1, 0)}
        positives, negatives = (Side.of(y, self.logits[at], self.answer.gradient[at]) for y, at in where.items())
        return positives, negatives


def percent(share: float) -> str:
    """Returns a share as text, such as "94 %" or "0.12 %"."""
    return f"{100 * share:.0f} %" if share > 0.1 else f"{100 * share:.2g} %"
