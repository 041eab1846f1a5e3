"""States the answer: what to use, how sure that is, and what to do next, each thing once."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from lopsided.jobs.compare_config import in_seconds
from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.evidence import LINEAR
from lopsided.jobs.numbers import between, p_value, share
from lopsided.jobs.schema import Comparison, Results
from lopsided.jobs.verdict import AHEAD, BEHIND, BELOW, BETTER, NOTHING, UNTESTED, WORSE, leading, recommended
from lopsided.metrics.friedman import Ranks
from lopsided.metrics.significance import LEVEL

_LEAST = 0.0005  # a difference that three digits show
_NAMED = 4  # where there are more losses, only the first are named
_BY_LABEL, _ONE = "one threshold a label", "one tuned threshold"


def headline(results: Results) -> str:
    """Says in one sentence which loss to use and what it brings, or what to do first; without the full stop."""
    found = _by_verdict(results.comparisons)
    reference, title = results.reference, METRICS[results.metric].title
    if BETTER in found:
        chosen = recommended(results)
        decided = f" and {thresholds}" if (thresholds := rule(results, chosen)) else ""
        return f"Use {_as_trained(results, chosen)}{decided}: {_worth(results, chosen)}"
    if set(found) <= {UNTESTED}:
        return f"Nothing can be said in {title}: {_untested(results)}"
    if AHEAD in found:
        best = leading(results, found[AHEAD])
        lead = f"{best} by {share(abs(results.comparisons[best].mean or 0.0))}"
        names = f"{_some(found[AHEAD])} {_are(found[AHEAD])} ahead of {reference}"
        return f"Train longer before you choose: {names} in {title} so far, {lead}, but {reference} is unfinished"
    if unfinished := _unfinished(results):
        names = "all of them" if len(unfinished) == len(results.losses) else _some(unfinished)
        kept = f"{names} still gained on validation rows when training ended"
        return f"Train longer before you choose: no loss is shown to beat {reference} in {title}, but {kept}"
    if BELOW in found:
        said = f"{_some(found[BELOW])} {_are(found[BELOW])} ahead of it, but below a baseline"
        return f"Keep {_as_trained(results, reference)} for now, and improve the model first: {said}"
    value = share(results.losses[reference].metrics[results.metric].mean)
    return f"Keep {_as_trained(results, reference)}: no loss is shown to beat it in {title}, {value}"


def answer(results: Results) -> str:
    """Says the headline, and before it what makes the choice of a loss matter less; whole sentences."""
    return " ".join(f"{sentence}." for sentence in (*_warnings(results), headline(results)))


def _warnings(results: Results) -> Iterator[str]:
    """Yields what stands above any verdict: that the data decide little, or that the model is what lacks."""
    if results.seen:
        of_all = f"{results.seen} of {results.data.rows.test} test rows"
        yield f"{of_all} are like rows of training, or of their groups, and say little of new ones: see the notes"
    tested, title = results.tested, METRICS[results.metric].title
    if _decides_little(results):
        known = tested.with_positives - tested.few
        have = f"{known or 'none'} of {results.data.labels} {'have' if known > 1 else 'has'} five test positives"
        yield f"Few labels can be tested: {have}, so more test rows are needed"
        return
    if not results.to_linear or len(_unfinished(results)) == len(results.losses):
        return  # of models that are half trained it is not known
    if any(_is_above(gap.mean, gap.p_holm, results) for gap in results.to_linear.values()):
        return
    value = share(results.baselines[LINEAR].metrics[results.metric])
    sign = METRICS[results.metric].sign
    if results.baselines[LINEAR].metrics[results.metric] == max(sign, 0):
        yield f"The linear baseline has nothing left to gain on these test rows: {title} {value}"
    elif all(sign * (gap.mean or 0.0) < 0 for gap in results.to_linear.values()):
        yield f"The model is the problem, not the loss: none is ahead of the linear baseline, {title} {value}"
    else:
        yield f"No loss is shown to beat the linear baseline, {title} {value}: a better model may bring more"


def _decides_little(results: Results) -> bool:
    """Tells whether most of the labels that can be tested have too few positives for it."""
    return results.tested.few > results.tested.with_positives / 2


def _unfinished(results: Results) -> list[str]:
    """Returns the losses that still gained when training ended, of those that may yet be the best."""
    open_ones = {results.reference} | {
        loss for loss, c in results.comparisons.items() if c.verdict in (AHEAD, BEHIND, NOTHING)
    }
    return [loss for loss, entry in results.losses.items() if entry.rising and loss in open_ones]


def _untested(results: Results) -> str:
    """Says why no loss can be compared with the reference."""
    title, mean = METRICS[results.metric].title, results.losses[results.reference].metrics[results.metric].mean
    if not results.tested.with_positives:
        return "no label has a positive in the test rows; give test rows that have some"
    if results.resplit and all(entry.metrics[results.metric].mean is None for entry in results.losses.values()):
        return "some split has too few positives in its test rows; give more rows"
    if mean is None:
        return f"{results.reference} has none, see the notes; take another reference"
    if all(c.mean is None for c in results.comparisons.values()):
        return f"only {results.reference} has a {title}, see the notes"
    return "too few test rows have a positive; give more"


def _is_above(gain: float | None, p: float | None, results: Results) -> bool:
    sign = METRICS[results.metric].sign
    return gain is not None and sign * gain > 0 and _is_below(p)


def rule(results: Results, loss: str) -> str | None:
    """Returns the thresholds that give the loss the higher macro-F1; None where none were tuned."""
    metrics = results.losses[loss].metrics
    by_label, one = (metrics[name].mean for name in ("macro_f1_labels", "macro_f1"))
    if by_label is None or one is None:
        return None
    return _ONE if one > by_label else _BY_LABEL


def command(results: Results, folder: Path | None) -> str | None:
    """Returns the command that does what the headline says: train the loss to use, or train all of them longer.

    None where the models were trained elsewhere.
    """
    if folder is None or results.recipe is None:
        return None
    found = _by_verdict(results.comparisons)
    if BETTER not in found and (AHEAD in found or _unfinished(results)):
        longer = f"--epochs {3 * results.recipe.epochs}"
        if results.budget is not None:
            longer += f" --budget {3 * in_seconds(results.budget):.12g}s"
        return f"lopsided compare {shlex.quote(str(folder / 'config.json'))} {longer}"
    loss = recommended(results)
    decided = " --valid 0.1 --decide global" if rule(results, loss) == _ONE else ""
    return f"lopsided fit --like {shlex.quote(str(folder))} --loss {shlex.quote(loss)}{decided}"


def findings(results: Results) -> list[str]:
    """Returns the verdicts in words, but for what the headline says: one sentence for all losses that have the same."""
    reference, title = results.reference, METRICS[results.metric].title
    found = _by_verdict(results.comparisons)
    relations = {
        BETTER: f"better than {reference} in {title}, too",
        WORSE: f"worse than {reference} in {title}: leave {'them' if len(found.get(WORSE, [])) > 1 else 'it'}",
        AHEAD: f"ahead of {reference} in {title} so far, but {reference} is unfinished: train longer",
        BEHIND: f"behind {reference} in {title} so far, but unfinished: train longer",
        BELOW: f"ahead of {reference} in {title}, but below a baseline: improve the model first",
    }
    said = {BETTER: [recommended(results)], AHEAD: found.get(AHEAD, []) if BETTER not in found else []}
    if headline(results).startswith("Keep"):
        said[BELOW] = found.get(BELOW, [])
    sentences = []
    for word, all_losses in found.items():
        losses = [loss for loss in all_losses if loss not in said.get(word, ())]
        if not losses:
            continue
        if word in relations:
            sentences.append(f"{_some(losses)} {_are(losses)} {relations[word]}")
        elif word == NOTHING:
            sentences += _not_shown(results, losses)
        elif set(found) > {UNTESTED}:
            sentences.append(f"{_some(losses)} cannot be compared with {reference} in {title}, see the notes")
    return [*sentences, *_depends_on_the_list(results)]


def _not_shown(results: Results, losses: list[str]) -> Iterator[str]:
    """Yields what is to be said of losses without a shown difference: how large a one would have been found."""
    reference, title = results.reference, METRICS[results.metric].title
    sizes = {loss: results.comparisons[loss].detectable or 0.0 for loss in losses}
    equal = [loss for loss in losses if sizes[loss] < _LEAST and abs(results.comparisons[loss].mean or 0.0) < _LEAST]
    if equal:
        yield f"{_some(equal)} {_are(equal)} equal to {reference} in {title} on these test rows"
    others = [loss for loss in losses if loss not in equal]
    known = [size for loss in others if (size := sizes[loss]) >= _LEAST]
    if not others:
        return
    power = ""
    if known and not _decides_little(results):
        least, most = share(min(known)), share(min(max(known), 1.0))
        about = f"one above {most}" if least == most else f"one above {least} to {most}, depending on the loss,"
        power = f"; {'none' if min(known) > 1 else about} would be found with 80 % power"
    yield f"{_some(others)}: no difference to {reference} was shown in {title}{power}"


def _depends_on_the_list(results: Results) -> Iterator[str]:
    """Yields where a difference would be shown had fewer losses been compared, and Holm's correction takes it away."""
    changed = [
        loss
        for loss, c in results.comparisons.items()
        if _is_below(c.p_alone) and _is_below(c.p_value) and not _is_below(c.p_holm)
    ]
    if changed:
        found = [results.comparisons[loss] for loss in changed]
        alone, here = (listed([p_value(getattr(c, p)) for c in found]) for p in ("p_alone", "p_holm"))
        yield (
            f"The verdict on {listed(changed)} depends on the list of losses: beside {results.reference} alone the "
            f"same models show a difference (p {alone}), among {len(results.losses)} losses none (p {here})"
        )


def _is_below(p: float | None) -> bool:
    return p is not None and p < LEVEL


def groups_in_words(results: Results) -> str:
    """Says which labels are rare, middling and frequent."""
    said = [
        f"{group.name}: {group.low}{f' to {group.high}' * (group.high > group.low)} training "
        f"positive{'s' * (group.high != 1)}, {group.labels} label{'s' * (group.labels > 1)}"
        + (f", {group.tested or 'none'} of them with test positives" if group.tested < group.labels else "")
        for group in results.groups
    ]
    return "; ".join(said).capitalize() + "."


def _worth(results: Results, loss: str) -> str:
    """Says how good the loss is, and how far above the reference and the linear baseline; then the other metrics."""
    name, c = results.metric, results.comparisons[loss]
    direction = "above" if METRICS[name].higher_is_better else "below"
    parts = [
        f"{METRICS[name].title} {share(results.losses[loss].metrics[name].mean)}",
        f"{share(abs(c.mean or 0.0))} {direction} {results.reference} ({between(c)})",
    ]
    if gap := results.to_linear.get(loss):
        parts.append(f"{share(abs(gap.mean or 0.0))} {direction} the linear baseline")
    others: dict[str, list[str]] = {}
    for other, compared in results.other_comparisons.items():
        others.setdefault(compared[loss].verdict, []).append(METRICS[other].title)
    said = [f"{listed(titles)} {_in_words(word, titles)}" for word, titles in others.items() if word != UNTESTED]
    return "; ".join([", ".join(parts), *said])


def _in_words(word: str, titles: list[str]) -> str:
    several = len(titles) > 1
    if word == NOTHING:
        return "show no difference" if several else "shows no difference"
    return f"{'are' if several else 'is'} {word}"


def _as_trained(results: Results, loss: str) -> str:
    """Names a loss with its tuned settings and its rate."""
    entry = results.losses[loss]
    if results.is_solved:
        return loss if entry.l2 is None else f"{loss} with penalty {entry.l2:.3g}"
    rate = (entry.tuned_settings or {}).get("learning_rate", results.recipe.learning_rate if results.recipe else None)
    settings = loss if not entry.tuned_settings or len(entry.tuned_settings) == 1 else entry.settings
    return settings if rate is None else f"{settings} with learning rate {rate:g}"


def _by_verdict(comparisons: Mapping[str, Comparison]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for loss, comparison in comparisons.items():
        found.setdefault(comparison.verdict, []).append(loss)
    return found


def ranks_headline(ranks: Ranks, metric: str) -> str:
    """Says which losses rank best over several data sets."""
    title, best = METRICS[metric].title, ranks.losses[0]
    over = f"over {ranks.data_sets} data sets"
    if not ranks.permutation_p < LEVEL:
        apart = f"mean ranks {share(ranks.critical_difference, 2)} apart would differ"
        if ranks.critical_difference > len(ranks.losses) - 1:
            apart = "over so few no ranks could differ, so add data sets"
        return f"No difference between the losses was shown in {title} {over}; {apart}"
    equals = next((group for group in ranks.groups if best in group), (best,))
    beaten = [loss for loss in ranks.losses if loss not in equals]
    if not beaten:
        return f"The losses differ in {title} {over}, but none is shown to be behind {best}, which ranks best"
    return f"{best} ranks best in {title} {over}, and is shown to be ahead of {_some(beaten)}"


def listed(texts: list[str]) -> str:
    """Lists the names as a sentence does: asl, apl and zlpr."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _some(losses: list[str]) -> str:
    """Returns the first of many names, in their order."""
    return listed(losses if len(losses) <= _NAMED else [*losses[: _NAMED - 1], f"{len(losses) - _NAMED + 1} others"])


def _are(losses: list[str]) -> str:
    return "is" if len(losses) == 1 else "are"
