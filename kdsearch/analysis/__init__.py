"""From a study's results to the paper's figures and tables. No disk, no clock, no torch."""

from kdsearch.analysis.cases import (
    CaseResult,
    Evaluated,
    Failure,
    Size,
    State,
    Step,
    TeacherScore,
    Tried,
    UnderSeeds,
)
from kdsearch.analysis.comparisons import figure_1, figure_2, figure_3
from kdsearch.analysis.cost import Spent, cost, students_of
from kdsearch.analysis.erm import Erm
from kdsearch.analysis.gains import CaseGain, Comparison, LeftOut, Relative, compare, deciles, gain
from kdsearch.analysis.paper import PaperRow
from kdsearch.analysis.replay import Recorded, Replayed, Table, recorded, regrouped, replay
from kdsearch.analysis.scores import Contender, Contenders, Tested, contenders
from kdsearch.analysis.stable import (
    RewardRow,
    Stable,
    Table3,
    share_not_above_zero,
    stable_configuration,
    table_3,
)
from kdsearch.analysis.summary import Analysis, Figures, Status, analyse

__all__ = [
    "Analysis",
    "CaseGain",
    "CaseResult",
    "Comparison",
    "Contender",
    "Contenders",
    "Erm",
    "Evaluated",
    "Failure",
    "Figures",
    "LeftOut",
    "PaperRow",
    "Recorded",
    "Relative",
    "Replayed",
    "RewardRow",
    "Size",
    "Spent",
    "Stable",
    "State",
    "Status",
    "Step",
    "Table",
    "Table3",
    "TeacherScore",
    "Tested",
    "Tried",
    "UnderSeeds",
    "analyse",
    "compare",
    "contenders",
    "cost",
    "deciles",
    "figure_1",
    "figure_2",
    "figure_3",
    "gain",
    "recorded",
    "regrouped",
    "replay",
    "share_not_above_zero",
    "stable_configuration",
    "students_of",
    "table_3",
]
