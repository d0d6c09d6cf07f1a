"""Several small students in one pass: where a step is overhead rather than arithmetic.

`Stack` is a model that computes all of them, `Together` and `train_together` train them, and
`fusing_pays` tells whether that is any use.
"""

from kdsearch.distill.together.modules import UnlikeError
from kdsearch.distill.together.probe import fusing_pays
from kdsearch.distill.together.stack import Stack
from kdsearch.distill.together.training import Together, train_together

__all__ = ["Stack", "Together", "UnlikeError", "fusing_pays", "train_together"]
