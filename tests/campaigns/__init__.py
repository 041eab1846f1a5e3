"""Campaigns: many inputs, kills and limits, under which a command must do as it promises.

Their children are forked and limited. Where a system has no such thing, tests that import any of this are skipped.
"""

import pytest

pytest.importorskip("resource", reason="needs fork and limits of a process, which Windows lacks")
