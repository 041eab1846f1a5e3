"""Writes the tables and plots of the study from results.csv and pieces.csv: python studies/which_loss/pages.py"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from measured import BASE, Gain, Measured, marked
from plots import plots
from scipy import stats
from sets import KINDS, SPLIT
from study import FAMILIES, GAMMAS, HERE, HIDDEN, pieces, read
from tables import ROOT, grid, put
from views import of_examples

from lopsided.jobs.numbers import share, signed

PAGE, README = ROOT / "docs/which_loss.md", ROOT / "README.md"
LOSSES = tuple(loss for family in ("losses", "ranking", "balanced", "adaptive") for loss in FAMILIES[family])
MAIN = ("focal", "asl", "apl", "zlpr")  # beside bce, what `lopsided compare` has by default
QUESTIONS = {
    "map": "mAP",
    "micro_f1": "micro-F1, one threshold",
    "macro_f1": "macro-F1, one threshold",
    "micro_f1_labels": "micro-F1, one a label",
    "macro_f1_labels": "macro-F1, one a label",
}
RULES = {"own": "_own", "one": "", "one a label": "_labels"}
GROUPS = ("rare", "middling", "frequent")
FACTS = {
    "training rows": "training rows",
    "labels": "labels",
    "positives a row": "positives a row",
    "median positives of a label": "positives of the median label",
}
Body = list[list[str]]


def load(folder: Path = HERE) -> Measured:
    return Measured(read(folder / "results.csv"), read(folder / "pieces.csv"))


def cell(gain: Gain | None) -> str:
    """Writes a difference with its interval, bold where it is shown."""
    if gain is None:
        return ""
    text = f"{signed(gain.mean)} ({signed(gain.low)} to {signed(gain.high)})"
    return f"**{text}**" if gain.is_shown else text


def names(some: Sequence[str]) -> str:
    return f"{', '.join(some[:-1])} and {some[-1]}" if len(some) > 1 else "".join(some)


def state(study: Measured) -> str:
    """Says how much is measured."""
    whole = len(study.sets())
    return (
        f"{len(study.pieces)} of {len(pieces())} pieces are measured, {whole} sets as they are among them; "
        "[below](#what-was-compared-and-how) stands which. What is missing is in no table."
    )


def measured(study: Measured) -> str:
    """Returns what is measured and what is missing, and says by what."""
    done = {(row["family"], row["set"], row["hidden"]) for row in study.pieces}
    body = []
    for family, part in dict.fromkeys((piece.family, piece.key["hidden"]) for piece in pieces()):
        some = [piece.set for piece in pieces() if (piece.family, piece.key["hidden"]) == (family, part)]
        has = [name for name in some if (family, name, part) in done]
        told = f"{len(has)} of {len(some)}{': ' * bool(has)}{'; '.join(has)}"
        body.append([TITLES[family], f"{100 * float(part):.0f} %", told])
    first = study.pieces[0]
    commits, processors = ([*dict.fromkeys(row[fact] for row in study.pieces)] for fact in ("commit", "processor"))
    minutes = sum(float(row["CPU s"]) for row in study.pieces) / 60
    return (
        f"{grid(['compared', 'hidden', 'sets measured'], body)}\n\n"
        f"Measured by `python studies/which_loss/study.py` on {names(processors)}, one thread, torch "
        f"{first['torch']}, Python {first['python']}, commit{'s' * (len(commits) > 1)} {', '.join(commits)}, in "
        f"{minutes:.0f} minutes of the processor, without what a piece took before it was stopped and taken up again."
    )


TITLES = {
    "losses": names(FAMILIES["losses"]),
    "ranking": names(FAMILIES["ranking"]),
    "gamma": "asl without clip at four gammas",
    "balanced": names(FAMILIES["balanced"]),
    "adaptive": names(FAMILIES["adaptive"]),
    "fixed": "settings of Huang et al.",
    "chosen": "their split at our settings",
}


def sets(study: Measured) -> str:
    body = []
    for name in study.sets():
        facts = study.about(name)
        how = "solved" if facts["solved"] == "1" else "in steps"
        means = [share(study.mean(name, loss, "map")) for loss in (BASE, "linear")]
        body.append([name, KINDS[name], how, *(facts[fact] for fact in FACTS), *means])
    return grid(["set", "rows are", "trained", *FACTS.values(), "mAP of bce", "of the linear baseline"], body)


def answers(study: Measured) -> str:
    """Says for each metric whether a loss is shown to beat bce."""
    lines = []
    for metric, title in QUESTIONS.items():
        gains = on_all(study.gains(LOSSES, metric), study.sets())
        shown = {loss: gain for loss, gain in gains.items() if gain.is_shown and gain.mean > 0}
        first = max(gains, key=lambda loss: gains[loss].mean)
        told = {loss: f"{loss} by {cell(gain)}" for loss, gain in gains.items()}
        worse = [told[loss] for loss, gain in gains.items() if gain.is_shown and gain.mean < 0]
        says = (
            f"shown to beat bce: {names([told[loss] for loss in shown])}" if shown else "no loss is shown to beat bce"
        )
        says += "" if first in shown else f"; ahead most is {told[first]}"
        says += f"; shown to be behind: {names(worse)}" if worse else ""
        high, loss = max((gain.high, loss) for loss, gain in gains.items())
        says += f"; no interval reaches above that of {loss}, {signed(high)}"
        lines.append(f"- **{title}**: {says}.")
    few = [loss for loss in LOSSES[1:] if loss not in on_all(study.gains(LOSSES, "map"), study.sets())]
    left_out = (
        f"\n\nLeft out, since they are not measured on all of these sets, or diverged: {names(few)}." if few else ""
    )
    return f"Over {len(study.sets())} sets:\n\n" + "\n".join(lines) + left_out


def on_all(gains: Mapping[str, Gain], sets: Sequence[str]) -> dict[str, Gain]:
    """Leaves out losses that are not measured on all sets: their means are of other sets."""
    return {loss: gain for loss, gain in gains.items() if gain.sets == len(sets)}


def gains(study: Measured) -> str:
    """Returns a line for each loss, and for the linear baseline: differences to bce in every question's metric."""
    shown = {metric: study.gains(LOSSES, metric) for metric in QUESTIONS}
    beside = {metric: study.gains(["linear"], metric) for metric in QUESTIONS}
    lines: Body = []
    for loss in [*shown["map"], "linear"]:
        of_loss = [(beside if loss == "linear" else shown)[metric].get(loss) for metric in QUESTIONS]
        counted = next(gain for gain in of_loss if gain is not None)
        lines.append([loss, str(counted.sets), *map(cell, of_loss)])
    return grid(["loss", "sets", *QUESTIONS.values()], lines)


def by_set(study: Measured) -> str:
    """Returns the differences to bce in mAP on every set."""
    losses = [loss for loss in LOSSES[1:] if any(study.values(name, loss, "map") for name in study.sets())]
    body = []
    for name in study.sets():
        found = study.differences(name, LOSSES, "map")
        cells = [marked(*found[loss]) if loss in found else "" for loss in losses]
        body.append([name, share(study.mean(name, BASE, "map")), *cells])
    return grid(["set", BASE, *losses], body)


def rules(study: Measured) -> str:
    """Returns what a loss adds to bce at each kind of threshold, and what thresholds alone add to bce."""
    metrics = {f"{f1}-F1, {rule}": f"{f1}_f1{end}" for f1 in ("micro", "macro") for rule, end in RULES.items()}
    columns = {title: study.gains(LOSSES, metric) for title, metric in metrics.items()}
    some = study.sets()
    body = [
        ["bce itself", *(share(fmean(study.mean(name, BASE, metric) for name in some)) for metric in metrics.values())]
    ]
    body += [[loss, *(cell(each.get(loss)) for each in columns.values())] for loss in LOSSES if loss != BASE]
    told = []
    for f1 in ("micro", "macro"):
        ends = [end for end in RULES.values() if end != "_own"]
        brings = [study.gain_of_thresholds(BASE, f"{f1}_f1_own", f"{f1}_f1{end}") for end in ends]
        most = max((gain.mean, loss) for loss, gain in columns[f"{f1}-F1, one a label"].items())
        told.append(
            f"In {f1}-F1, one tuned threshold brings bce {cell(brings[0])} above its own, one a label "
            f"{cell(brings[1])}; the loss that is ahead most with one a label, {most[1]}, adds "
            f"{signed(most[0])} to that."
        )
    return f"{' '.join(told)}\n\n{grid(['', *columns], [line for line in body if any(line[1:])])}"


def groups(study: Measured) -> str:
    columns = {
        f"{title}, {group}": study.gains(LOSSES, metric, labels=group)
        for metric, title in (("map", "mAP"), ("macro_f1_labels", "macro-F1 one a label"))
        for group in GROUPS
    }
    body = [[loss, *(cell(each.get(loss)) for each in columns.values())] for loss in LOSSES if loss != BASE]
    return grid(["", *columns], [line for line in body if any(line[1:])])


def in_all_shares(study: Measured) -> list[str]:
    """Returns the sets that are measured with every share of hidden positives."""
    each = [set(study.sets(f"{share:g}")) for share in HIDDEN]
    return [name for name in study.sets() if all(name in some for some in each)]


def hidden(study: Measured) -> str:
    """Returns differences to bce with ever more positives hidden, on the sets that have all shares."""
    some = in_all_shares(study)
    if len(some) < 2:
        return "**Not measured yet.**"
    columns = {
        f"{title}, {100 * part:.0f} %": study.gains(LOSSES, metric, hidden=f"{part:g}", sets=some)
        for metric, title in (
            ("map", "mAP"),
            ("micro_f1_own", "micro-F1 own"),
            ("macro_f1_labels", "macro-F1 one a label"),
        )
        for part in HIDDEN
    }
    body = [[loss, *(cell(each.get(loss)) for each in columns.values())] for loss in LOSSES if loss != BASE]
    own = [
        share(fmean(study.mean(name, BASE, metric, hidden=f"{part:g}") for name in some))
        for metric in ("map", "micro_f1_own", "macro_f1_labels")
        for part in HIDDEN
    ]
    table = grid(["", *columns], [["bce itself", *own], *(line for line in body if any(line[1:]))])
    plot = "![mAP above bce with ever more positives hidden](which_loss/hidden.svg)"
    return f"{table}\n\nSets: {', '.join(some)}.\n\n{plot}"


def moderators(study: Measured) -> str:
    """Returns the rank correlation of a loss's lead in mAP with what the sets are like."""
    body = []
    for loss in LOSSES[1:]:
        found = {name: study.differences(name, LOSSES, "map").get(loss) for name in study.sets()}
        lead = {name: each[0].mean for name, each in found.items() if each is not None}
        if len(lead) > 3:
            facts = [[float(study.about(name)[fact]) for name in lead] for fact in FACTS]
            tests = [stats.kendalltau(values, [*lead.values()]) for values in facts]
            told = [f"{signed(float(test.statistic), 2)} (p {share(float(test.pvalue), 2)})" for test in tests]
            body.append([loss, str(len(lead)), *told])
    return grid(["loss", "sets", *FACTS.values()], body)


def gamma(study: Measured) -> str:
    """Returns mAP by gamma, and the gamma that is best by the mean over splits."""
    losses, body, best, shares = {0: BASE, **GAMMAS}, [], [], []
    some = [name for name in study.sets(family="gamma") if name in study.sets()]
    if len(some) < 2:
        return "**Not measured yet.**"
    for name in sorted(some, key=lambda each: share_true(study, each)):
        means = {number: study.mean(name, loss, "map") for number, loss in losses.items()}
        best.append(max(means, key=lambda number: means[number]))
        shares.append(share_true(study, name))
        found = study.differences(name, [*losses.values()], "map")
        cells = [share(means[0]), *(marked(*found[loss]) for loss in GAMMAS.values())]
        body.append([name, f"{100 * shares[-1]:.1f} %", *cells, str(best[-1])])
    table = grid(["set", "labels that are true", "mAP at 0", *map(str, GAMMAS), "best"], body)
    test = stats.kendalltau(shares, best)
    told_tau = f"Kendall's tau {signed(float(test.statistic), 2)}, p {share(float(test.pvalue), 2)}"
    constant = len(set(best)) == 1
    says = "the best gamma is the same everywhere" if constant else told_tau
    return f"{table}\n\nShare of true labels and best gamma over {len(some)} sets: {says}."


def published(study: Measured) -> str:
    """Returns F1 by kind of threshold at fixed settings and at chosen ones, on the split that others have."""
    ends = {".40 to .60": "_window", "own": "_own", "one": "", "one a label": "_labels"}
    body: Body = []
    told = []
    for family, title in (("fixed", "their settings"), ("chosen", "our settings")):
        name = f"{SPLIT}, {family}"
        if name not in study.sets(family=family):
            continue
        for loss in FAMILIES[family]:
            f1 = [study.values(name, loss, f"{each}_f1{end}") for each in ("micro", "macro") for end in ends.values()]
            cells = [f"{share(fmean(each))} ± {share(stdev(each))}" if each else "" for each in f1]
            body.append([title, loss, *cells])
        leads = [_lead(study, name, FAMILIES[family], f"{each}_f1_window") for each in ("micro", "macro")]
        told.append(f"At {title}, in micro-F1 {leads[0]}, and in macro-F1 {leads[1]}.")
    head = [f"{f1}-F1, {end}" for f1 in ("micro", "macro") for end in ends]
    return f"{' '.join(told)}\n\n{grid(['', 'loss', *head], body)}" if body else "**Not measured yet.**"


def _lead(study: Measured, name: str, losses: Sequence[str], metric: str) -> str:
    means = {loss: study.mean(name, loss, metric) for loss in losses}
    ordered = sorted(means, key=lambda loss: -means[loss])
    first, place = ordered[0], f"number {ordered.index(BASE) + 1} of {len(means)}"
    return f"{first} is first, {share(means[first] - means[BASE])} above bce, which is {place}"


def share_true(study: Measured, name: str) -> float:
    facts = study.about(name)
    return float(facts["positives a row"]) / float(facts["labels"])


Wanted = Callable[[Mapping[str, str]], bool]


def _any(facts: Mapping[str, str]) -> bool:
    return True


SITUATIONS: list[tuple[str, str, str, str, Wanted]] = [  # words, metric, group of labels, hidden share, sets
    ("you rank labels or rows (mAP)", "map", "all", "0", _any),
    ("no threshold can be tuned (micro-F1)", "micro_f1_own", "all", "0", _any),
    ("no threshold can be tuned (macro-F1)", "macro_f1_own", "all", "0", _any),
    ("one threshold is tuned, every decision counts (micro-F1)", "micro_f1", "all", "0", _any),
    ("one threshold is tuned, every label counts (macro-F1)", "macro_f1", "all", "0", _any),
    ("each label has a threshold (macro-F1)", "macro_f1_labels", "all", "0", _any),
    ("the rarest third of labels matters (mAP)", "map", "rare", "0", _any),
    ("the rarest third of labels matters (macro-F1, one a label)", "macro_f1_labels", "rare", "0", _any),
    ("20 % of the positives are missing (mAP)", "map", "all", "0.2", _any),
    ("40 % of the positives are missing (mAP)", "map", "all", "0.4", _any),
    ("40 % of the positives are missing, no threshold can be tuned (micro-F1)", "micro_f1_own", "all", "0.4", _any),
    ("fewer than 1,500 training rows (mAP)", "map", "all", "0", lambda facts: int(facts["training rows"]) < 1500),
    ("40 labels or more (mAP)", "map", "all", "0", lambda facts: int(facts["labels"]) >= 40),
    ("14 labels or fewer (mAP)", "map", "all", "0", lambda facts: int(facts["labels"]) <= 14),
    (
        "a linear model that is solved: texts, sparse rows (mAP)",
        "map",
        "all",
        "0",
        lambda facts: facts["solved"] == "1",
    ),
    ("a network that is trained in steps (mAP)", "map", "all", "0", lambda facts: facts["solved"] == "0"),
]


def decisions(study: Measured) -> str:
    """Returns what to start with where data look so: a loss that is shown to beat bce there, else bce."""
    body = []
    for words, metric, labels, part, wanted in SITUATIONS:
        some = [name for name in study.sets(part) if wanted(study.about(name))]
        found = study.gains(LOSSES, metric, labels, part, some) if len(some) > 1 else {}
        whole = on_all(found, some)
        if not whole:
            body.append([words, "not measured", f"{len(some)} set{'s' * (len(some) != 1)}"])
            continue
        first = max(whole, key=lambda loss: whole[loss].mean)
        shown = {loss: gain for loss, gain in whole.items() if gain.is_shown and gain.mean > 0}
        start = max(shown, key=lambda loss: shown[loss].mean) if shown else BASE
        gain = whole[start if shown else first]
        evidence = f"{start if shown else first} {signed(gain.mean)} ({signed(gain.low)} to {signed(gain.high)}), p "
        evidence += f"{share(gain.p)}, {len(some)} sets: better on {gain.better}, worse on {gain.worse}"
        body.append(
            [words, f"**{start}**" if shown else start, evidence if gain.mean > 0 else f"none is ahead; {evidence}"]
        )
    return grid(["if", "start with", "evidence: the loss that is ahead most, against bce"], body)


def summary(study: Measured) -> str:
    """Returns the study in one table, of the main losses."""
    lines = {
        "mAP": study.gains(LOSSES, "map"),
        "macro-F1, own threshold": study.gains(LOSSES, "macro_f1_own"),
        "macro-F1, one tuned threshold": study.gains(LOSSES, "macro_f1"),
        "macro-F1, one threshold a label": study.gains(LOSSES, "macro_f1_labels"),
        "mAP, 40 % of the positives hidden": study.gains(LOSSES, "map", hidden="0.4"),
    }
    sets = {title: max(gain.sets for gain in found.values()) for title, found in lines.items() if found}
    body = [[f"{title}, {sets[title]} sets", *(cell(lines[title].get(loss)) for loss in MAIN)] for title in sets]
    return grid(["", *MAIN], body)


def page(study: Measured) -> str:
    made = (
        state,
        measured,
        sets,
        answers,
        gains,
        by_set,
        rules,
        groups,
        hidden,
        moderators,
        gamma,
        published,
        decisions,
    )
    return put(PAGE, {f"study {each.__name__}": each(study) for each in made})


def texts(study: Measured) -> dict[Path, str]:
    """Returns every page with tables of the study, as it should be."""
    return {
        PAGE: page(study),
        README: put(README, {"study": summary(study)}),
        **{file: put(file, tables) for file, tables in of_examples(study, MAIN).items()},
    }


if __name__ == "__main__":
    found = load()
    for path, text in (texts(found) | plots(found)).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(path)
