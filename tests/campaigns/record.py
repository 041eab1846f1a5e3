"""Keeps what campaigns found in benchmarks/results/campaigns.csv, of which docs/faults.md has the table."""

import csv
import subprocess
from collections import Counter
from pathlib import Path

from tests.campaigns.campaign import Campaign, Tally, kind_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/campaigns.csv"
PAGE = ROOT / "docs/faults.md"
COLUMNS = ("campaign", "seed", "kind", "trials", "found", "left", "commit")
_START, _END = "<!-- campaigns -->\n", "<!-- end of campaigns -->"


def record(campaign: Campaign, tally: Tally, left: set[int]) -> None:
    """Writes a line for each kind of trial, and the page. left: trials whose fault is there still."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found, remain = (Counter(kind_of(campaign, number) for number in numbers) for numbers in (tally.faults, left))
    lines = [each for each in _lines() if (each["campaign"], each["seed"]) != (campaign.name, str(tally.seed))]
    for kind in dict.fromkeys(campaign.kinds):
        values = (campaign.name, tally.seed, kind, tally.trials[kind], found[kind], remain[kind], commit.stdout.strip())
        lines.append(dict(zip(COLUMNS, map(str, values), strict=True)))
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    before, _, rest = PAGE.read_text().partition(_START)
    PAGE.write_text(before + _START + table() + _END + rest.partition(_END)[2])


def _lines() -> list[dict[str, str]]:
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="") as file:
        return list(csv.DictReader(file))


def table() -> str:
    """What the page shows: trials and faults of each kind, all seeds together."""
    sums: dict[tuple[str, str], Counter[str]] = {}
    for line in _lines():
        for of in ((line["campaign"], line["kind"]), (line["campaign"], "all")):
            sums.setdefault(of, Counter()).update({name: int(line[name]) for name in ("trials", "found", "left")})
    ordered = sorted(sums, key=lambda of: (list(sums).index((of[0], "all")), of[1] == "all"))
    rows = [f"| {name} | {kind} | {_counts(sums[name, kind])} |" for name, kind in ordered]
    return "\n".join(["| campaign | kind | trials | faults found | left |", "|---|---|---:|---:|---:|", *rows, ""])


def _counts(count: Counter[str]) -> str:
    return " | ".join(f"{count[name]:,}" for name in ("trials", "found", "left"))
