"""Runs a campaign: `python -m tests.campaigns readers --trials 100000`; the same line goes on where it was stopped."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.campaigns.campaign import Campaign, Tally, kind_of
from tests.campaigns.folders import Folders
from tests.campaigns.kills import Kills
from tests.campaigns.limits import Limits
from tests.campaigns.lines import Lines
from tests.campaigns.readers import Readers
from tests.campaigns.record import record
from tests.campaigns.requests import Requests

CAMPAIGNS: dict[str, Campaign] = {
    each.name: each for each in (Readers(), Folders(), Kills(), Limits(), Lines(), Requests())
}
_SECONDS = 5  # after which it is written how far a campaign is


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--trials", type=int, default=1000, help="in all, those of earlier calls included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one trial, to see what is wrong with it")
    parser.add_argument("--state", type=Path, help="where it stands what was done (campaign-NAME-SEED.json)")
    parser.add_argument("--record", action="store_true", help="try what failed once more, and write docs/faults.md")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    campaign = CAMPAIGNS[asked.campaign]
    state = asked.state or Path(f"campaign-{asked.campaign}-{asked.seed}.json")
    tally = Tally(asked.seed) if asked.only is not None else Tally.stored(state, asked.seed)
    numbers = range(tally.done, asked.trials) if asked.only is None else range(asked.only, asked.only + 1)
    stored = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, fault in campaign.run(numbers, asked.seed, Path(folder)):
            tally.add(campaign, number, fault)
            if fault is not None:
                print(f"seed {asked.seed}, trial {number}, {kind_of(campaign, number)}: {fault}", flush=True)
            if asked.only is None and (time.monotonic() - stored > _SECONDS or number == numbers[-1]):
                tally.store(state)
                stored = time.monotonic()
    print(tally.table(campaign))
    if asked.record:
        record(campaign, tally, {number for number in tally.faults if _fails(campaign, number, asked.seed)})
    return 1 if tally.faults else 0


def _fails(campaign: Campaign, number: int, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return any(fault is not None for _, fault in campaign.run(range(number, number + 1), seed, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
