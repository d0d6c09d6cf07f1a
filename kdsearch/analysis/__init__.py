"""From a study's results to the paper's figures and tables. No disk, no clock, no torch."""

from kdsearch.analysis.answer import Answer, CaseAnswer, Take, Verdict
from kdsearch.analysis.cases import (
    CandidateScores,
    CaseResult,
    DecisionScores,
    State,
    TeacherScore,
    TrialScores,
    UnderSeeds,
    UnscoredTraining,
    case_result,
    further_tuned,
)
from kdsearch.analysis.comparisons import figure_1, figure_2, figure_3
from kdsearch.analysis.cost import Spent, cost, students_of
from kdsearch.analysis.edges import (
    Edge,
    TeacherEdge,
    Unconverged,
    edges,
    teacher_edges,
    unconverged,
)
from kdsearch.analysis.erm import Erm, OtherSetting
from kdsearch.analysis.floor import AtFloor, Facts, Without, at_floor, floor_of
from kdsearch.analysis.gains import CaseGain, Comparison, LeftOut, Relative, compare, deciles, gain
from kdsearch.analysis.generations import Generation, Line
from kdsearch.analysis.levels import Level, Levels, StudentLevels
from kdsearch.analysis.noise import DEVIATIONS
from kdsearch.analysis.origins import (
    Start,
    StudentOrigin,
    TeacherOrigin,
    start_found,
    student_origin,
    teacher_origin,
)
from kdsearch.analysis.paper import PaperRow
from kdsearch.analysis.path import Difference, Step
from kdsearch.analysis.replay import Recorded, Replayed, Table, recorded, regrouped, replay
from kdsearch.analysis.scores import CaseCandidates, TestScores, case_candidates
from kdsearch.analysis.sizes import SizedModel, Sizes
from kdsearch.analysis.speeds import ModelSpeeds, Size
from kdsearch.analysis.stable import (
    RewardRow,
    Stable,
    Table3,
    share_not_above_zero,
    stable_configuration,
    table_3,
)
from kdsearch.analysis.summary import Analysis, Figures, Status, analyse
from kdsearch.analysis.trends import Trend
from kdsearch.analysis.trials import TrialResult, trial_results

__all__ = [
    "DEVIATIONS",
    "Analysis",
    "Answer",
    "AtFloor",
    "CandidateScores",
    "CaseAnswer",
    "CaseCandidates",
    "CaseGain",
    "CaseResult",
    "Comparison",
    "DecisionScores",
    "Difference",
    "Edge",
    "Erm",
    "Facts",
    "Figures",
    "Generation",
    "LeftOut",
    "Level",
    "Levels",
    "Line",
    "ModelSpeeds",
    "OtherSetting",
    "PaperRow",
    "Recorded",
    "Relative",
    "Replayed",
    "RewardRow",
    "Size",
    "SizedModel",
    "Sizes",
    "Spent",
    "Stable",
    "Start",
    "State",
    "Status",
    "Step",
    "StudentLevels",
    "StudentOrigin",
    "Table",
    "Table3",
    "Take",
    "TeacherEdge",
    "TeacherOrigin",
    "TeacherScore",
    "TestScores",
    "Trend",
    "TrialResult",
    "TrialScores",
    "Unconverged",
    "UnderSeeds",
    "UnscoredTraining",
    "Verdict",
    "Without",
    "analyse",
    "at_floor",
    "case_candidates",
    "case_result",
    "compare",
    "cost",
    "deciles",
    "edges",
    "figure_1",
    "figure_2",
    "figure_3",
    "floor_of",
    "further_tuned",
    "gain",
    "recorded",
    "regrouped",
    "replay",
    "share_not_above_zero",
    "stable_configuration",
    "start_found",
    "student_origin",
    "students_of",
    "table_3",
    "teacher_edges",
    "teacher_origin",
    "trial_results",
    "unconverged",
]
