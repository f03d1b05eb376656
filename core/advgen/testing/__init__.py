"""The conformance suite for plugin authors: does a plugin keep the contract that the core relies on?

import pytest
from advgen.testing import conformance_checks

@pytest.mark.parametrize("check", conformance_checks("points"), ids=str)
def test_points_keep_the_contract(check):
    check()
"""

from advgen.testing.suite import Check, check_plugin, conformance_checks

__all__ = ["Check", "check_plugin", "conformance_checks"]
