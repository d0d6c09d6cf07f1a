"""Looking at real rows with real models before students are trained."""

from __future__ import annotations

from kdsearch.distill.check import check_models
from kdsearch.distill.forward import forward_passes
from kdsearch.distill.memory import fits_memory
from kdsearch.distill.reading import readings
from kdsearch.distill.single_images import single_image_problems
from kdsearch.distill.term_check import term_problems_of_models
from kdsearch.distill.weights import weight_problems
from kdsearch.errors import InputError, Problem
from kdsearch.ledger import Ledger
from kdsearch.study import Preflight, Resolved, equal_layers, survey


def preflight(resolved: Resolved, ledger: Ledger, place: str, digest: str) -> Preflight:
    """All that can be found out on this machine; the ledger has the rows.

    Raises `InputError` with every problem of the data, the models' files, their tokenizers and
    their forward passes. These are left to a worker where they do not fit this machine's memory.
    """
    datasets, doubts, problems = survey(resolved, ledger.kept_rows, place)
    every: list[Problem] = [*problems]
    try:
        check_models(resolved, place)
    except InputError as error:
        every += error.problems
    else:
        every += term_problems_of_models(resolved, place)
        every += single_image_problems(resolved, place)
    every += weight_problems(resolved, place)
    if every:  # what follows reads the models
        raise InputError(dict.fromkeys(every))
    found, more_doubts, problems = readings(resolved, ledger.rows, place)
    if problems:
        raise InputError(dict.fromkeys(problems))
    result = Preflight(
        digest=digest,
        datasets=dict(datasets),
        readings=tuple(found),
        doubts=(*doubts, *equal_layers(resolved.study, resolved.models, place), *more_doubts),
    )
    return forward_preflight(result, resolved, ledger, place) if fits_memory(resolved) else result


def forward_preflight(
    before: Preflight, resolved: Resolved, ledger: Ledger, place: str, *, device: str = "cpu"
) -> Preflight:
    """What was found before, and what running the models shows. Raises `InputError`."""
    samples, doubts, problems = forward_passes(resolved, ledger, place, device=device)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return before.model_copy(
        update={
            "samples": tuple(samples),
            "doubts": (*before.doubts, *doubts),
            "forward": True,
        }
    )
