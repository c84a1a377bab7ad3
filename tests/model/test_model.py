"""The model of the handover protocol keeps its invariants, and a protocol without one of its precautions does not."""

import pytest

from tests.model.cases import MUTANTS, QUICK, Case
from tests.model.checker import check


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_the_invariants_hold_in_every_state(case: Case) -> None:
    outcome = check(case)
    assert outcome.holds, "\n".join([str(outcome), *outcome.trail])
    assert outcome.states > 10_000, "hardly anything happened"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_protocol_without_a_precaution_is_found_wrong(name: str) -> None:
    mutant = MUTANTS[name]
    outcome = check(mutant.case)
    assert outcome.violation is not None, f"{mutant.what}, and nothing was found: {outcome}"
    assert outcome.violation.startswith(mutant.breaks), "\n".join(outcome.trail)
