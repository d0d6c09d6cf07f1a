"""What the symbols and terms of a report mean, for readers to whom distillation is new.

The maps over what a study may hold (objectives, axes, checkpoints, measures, metrics) are closed:
`tests/test_closed_sets.py` fails where a member has no words here.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from kdsearch.agenda import Agenda
from kdsearch.report.markdown import escape
from kdsearch.search import OBJECTIVE, SYMBOLS, Checkpoint, Objective, parameters_of


@dataclass(frozen=True)
class Term:
    """A symbol or a term."""

    name: str
    text: str
    forms: tuple[str, ...]
    """How it is written in a report, its name among them."""


def _term(name: str, text: str, *forms: str) -> Term:
    return Term(name, text, tuple(dict.fromkeys((name, *forms))))


OBJECTIVES = {
    "ce": "Cross-entropy: the student learns to give each answer the probability that the teacher "
    "gives it.",
    "mse": "Mean squared error: the student learns to copy the teacher’s raw outputs (its logits), "
    "before they become probabilities. It has no temperature.",
    "reverse_kl": "KL divergence of the student’s probabilities from the teacher’s: like CE, but "
    "what the teacher thinks unlikely must be unlikely for the student too.",
    "jsd": "Jensen–Shannon divergence: how far the student’s and the teacher’s probabilities lie "
    "from a mixture of both.",
    "total_variation": "Total variation distance: how much probability the student would have to "
    "move to say what the teacher says. No single unlikely answer can make it large.",
    "dkd": "Decoupled distillation: the teacher’s confidence in the right class and its opinion of "
    "the other classes are learnt as two parts, each with a weight.",
    "ea_kd": "Entropy-based adaptive distillation: rows of which the teacher, and then the "
    "student, is undecided count for more. The loss is the KL divergence times τ².",
    "ea_dkd": "The same of decoupled distillation.",
    "ctkd": "Curriculum temperature: the KL divergence times τ², at a temperature that is itself "
    "learnt, to make the student’s task harder as it gets on.",
    "rld": "Refined logit distillation: the right class learns how sure the teacher is of what it "
    "finds likeliest, and the teacher’s opinion counts of the classes that it finds less likely "
    "than the right one, so that what it gets wrong is not learnt.",
    "dist": "Distillation from a stronger teacher: the student’s probabilities need not be the "
    "teacher’s, if they go up and down with them, over the classes of a row and over the rows of a "
    "class.",
    "mlkd": "Multi-level logit distillation: the teacher’s probabilities at five temperatures, how "
    "alike it finds the rows of a batch, and how alike the classes.",
    "features": "The labels, and what the teacher computes inside of it, such as hidden states and "
    "attention. What it says in the end, its logits, is not learnt from.",
    "sequence": "Sequence-level distillation: plain training on texts that the teacher wrote in "
    "the place of the labels (Kim & Rush, 2016).",
    "labels": "Empirical risk minimisation, also called labels alone or no teacher: plain "
    "training on the labels, without a teacher. What distillation has to beat.",
    "label_smoothing": "Label smoothing: plain training on the labels, of which a small share is "
    "spread over all classes, so that the student does not become too sure. No teacher.",
}
"""By the kind of an objective."""
_ALSO = {
    "labels": ("labels alone (ERM)", "labels alone", "no teacher"),
    "label_smoothing": ("label smoothing",),
}
"""How else they are written."""

AXES = {
    "distance": "What the student minimises: how far it is from the teacher, or from the labels.",
    "targets": "Which texts the student learns on: the data’s own, or what the teacher writes for "
    "each row: greedily, by a beam search, drawn (sample), or drawn and kept where the answer is "
    "right (rejection).",
    "temperature": "The teacher’s temperature. Its raw outputs are divided by it before they "
    "become probabilities: above 1, these show more of what it thinks of the less likely answers.",
    "student_temperature": "The student’s temperature while it is trained: the teacher’s "
    "(τ_s = τ_t) or 1.",
    "alpha": "How much the teacher counts. At 1 the student learns from the teacher alone, at 0.5 "
    "as much from the labels.",
    "standardise": "Whether the raw outputs for a row are brought to the mean 0 and the deviation "
    "1 before they are divided by a temperature, the student’s and the teacher’s alike, so that "
    "how sure either is does not matter.",
    "supervision": "What CE learns of the teacher: its probabilities (softmax); or, to see what of "
    "them matters, its likeliest class with a share spread evenly over all classes, as undecided "
    "as the teacher is on average (smoothed) or of that row (smoothed each); or its probabilities "
    "with those behind the likeliest so many exchanged at random (permuted after).",
    "class_of": "In DKD, EA-DKD and RLD, whose class is set apart: the label’s, or the one that "
    "the teacher finds likeliest, for which no label is needed; the latter is in no paper.",
    "entropy_temperature": "In EA-KD and EA-DKD, the temperature of the probabilities of whose "
    "entropies the weights of rows are made.",
    "entropy_bound": "In EA-KD and EA-DKD, what the student’s entropy is divided by: its largest "
    "value, ln C, as in the paper; or 100, as in the published code for CIFAR-100, so that it "
    "hardly counts.",
    "confidence_temperature": "In RLD, the temperature of the teacher’s highest probability, and "
    "of the student’s that learns it.",
    "temperature_start": "In CTKD, the lowest that the learnt temperature can be.",
    "temperature_span": "In CTKD, by how much more it can be at most.",
    "first_theta": "In CTKD, where the learnt temperature starts: at the lowest, plus σ of this "
    "times its span.",
    "adversary_epochs": "In CTKD, the epochs over which the temperature’s gradient, which is "
    "against the student, grows to its whole size.",
    "adversary_rate": "In CTKD, the learning rate of the temperature, at the student’s schedule.",
    "adversary_decay": "In CTKD, the weight decay of what the temperature is made of.",
    "inter_class": "In DIST, the weight of the correlations over the classes of a row.",
    "intra_class": "In DIST, the weight of the correlations over the rows of a class.",
    "sample_confidence": "In RLD, the weight of the teacher’s highest probability.",
    "masked_correlation": "In RLD, the weight of the classes that the teacher finds less likely "
    "than the right one.",
    "kd_weight": "In MLKD, the weight of distillation beside that of the labels.",
    "two_views": "In MLKD, whether each row is seen in two views, one weakly and one strongly "
    "augmented, or in one.",
    "beta": "The teacher’s share in the mixture that JSD measures distances from.",
    "target": "In DKD and EA-DKD, the weight of the teacher’s confidence in the right class.",
    "non_target": "In DKD and EA-DKD, the weight of the teacher’s opinion of the other classes.",
    "label_weight": "In DKD, EA-DKD, RLD, DIST and MLKD, the weight of the labels.",
    "gradient_scale": "Whether the loss is multiplied by τ_s², so that a high temperature does not "
    "make it small.",
    "temperature_unit": "What a temperature of 1 is: 1 (none), or the teacher’s logit scale, by "
    "which it is then multiplied: how far apart its raw outputs for one row lie, on average. "
    "Teachers that are sure to different degrees can so be searched with the same temperatures.",
    "warmup_epochs": "In DKD, EA-DKD and RLD, the epochs over which distillation grows to its "
    "whole weight.",
    "smoothing": "The share of a label that is spread over all classes.",
    "hint": "The weight of FitNets’ hint: the student’s middle layer learns to compute what the "
    "teacher’s does, through a projection that is learnt beside it and thrown away.",
    "hidden_states": "The weight of hidden states: what a layer of the student computes of each "
    "token, brought to the teacher’s width by a learnt projection, is drawn towards what the "
    "teacher’s layer that is mapped to it computes (TinyBERT).",
    "attention": "The weight of attention scores: how much each token looks at each other one, "
    "layer by layer (TinyBERT).",
    "cls_states": "The weight of the states of [CLS], the token that stands for the whole text, in "
    "mapped layers, whatever their length (PKD).",
    "relations": "The weight of self-attention relations: how alike the tokens’ queries are, their "
    "keys and their values, in the last layer. Widths may differ (MiniLM).",
    "layer_mapping": "Which of the teacher’s layers the student’s learn from: at even distances "
    "(uniform), the first, the last, or those that are named.",
    "attention_heads": "Whether attention scores are compared head by head, or as their mean.",
    "relation_heads": "Into how many parts queries, keys and values are divided, each of which has "
    "relations of its own.",
    "learning_rate": "How large a step each update of the student is. Tuned anew for every choice.",
    "layers": "Which of its model’s layers the student keeps, which is where it starts from: a "
    "number is that many at even distances.",
    "lora_rank": "LoRA: the student’s weights stay as they are, and small matrices of this rank, "
    "added to them, learn in their place. none: all of its weights learn.",
    "optimizer": "The rule that turns a loss into updates of the weights.",
    "batch_size": "The number of training rows per update.",
    "epochs": "Passes over the training rows. Of a training, the epoch that is best on validation "
    "is kept.",
    "schedule": "How the learning rate changes along a training: constant, or falling to 0 "
    "(linear, cosine).",
    "warmup": "The share of a training over which the learning rate rises from 0.",
    "precision": "The number format that is computed in: fp32 is exact, bf16 and fp16 are faster.",
    "momentum": "How much of the last update is repeated in the next one.",
    "nesterov": "A form of momentum that looks one step ahead.",
    "weight_decay": "How strongly weights are pulled towards 0.",
    "dropout": "The share of a model’s units that is switched off at random while it is trained.",
    "augmentation": "How images are changed before they are learnt from. light: cropped and "
    "flipped; full: changed by random operations (RandAugment) and mixed with others (MixUp, "
    "CutMix) too. The teacher is asked of the very images that the students see.",
    "clip": "The largest size that a gradient may have before it is cut.",
    "clip_per": "Whether that is the size of the whole gradient, or of each layer’s part of it: "
    "each matrix of weights, each bias and each norm by itself.",
}
"""By the name of an axis, or of a parameter of an objective."""
_FORMS = {"learning_rate": ("lr",), "temperature_unit": ("logit scale",)}
"""How else it is written, or what of it is."""

CHECKPOINTS = {
    Checkpoint.HIGHEST_SCORE: "The teacher as it was after the epoch of its highest validation "
    "score.",
    Checkpoint.LOWEST_LOSS: "The teacher as it was after the epoch of its lowest validation loss.",
    Checkpoint.GIVEN: "A teacher that came already trained, as a single checkpoint.",
    Checkpoint.WINNER: "A teacher that is itself a student of this study: what the test case of "
    "the generation before chose, under the first seed, at its best epoch.",
}

MEASURES = {
    "posterior_entropy": "How undecided a model is: 0 if it is sure of every answer. Neither "
    "high nor low is good in itself.",
    "relative_entropy": "Posterior entropy as a share of the highest that is possible.",
    "relative_entropy_without_top": "How evenly a model spreads what it does not give to its most "
    "probable answer: 1 if all others are alike to it, 0 if one of them has it all. Neither high "
    "nor low is good in itself.",
    "calibration_error": "The gap between how sure a model is and how often it is right; best is "
    "0. Of texts it is that of each token of the right one, as the entropies are.",
    "agreement": "How often student and teacher give the same answer; of texts, multiple choice "
    "too, at how many tokens of the right one both find the same one the likeliest, whatever "
    "answer is chosen or written.",
}
"""By the name of a measure."""

METRICS = {
    "f1": ("F1", "A score from 0 to 1: high only where what was found is right, and what is right "
           "was found. Macro: the mean over the classes; micro: over all of the answers at once."),
    "accuracy": ("accuracy", "The share of right answers, from 0 to 1."),
    "exact_match": ("exact match", "The share of answers that are right to the letter, from 0 to "
                    "1."),
    "likelihood": ("likelihood", "How probable a model finds the right continuation, by the token, "
                   "from 0 to 1: one over the perplexity. 0.25 is a perplexity of 4."),
    "multiple_choice": ("multiple choice", "The share of questions of whose choices a model finds "
                        "the right one most probable, by the character, from 0 to 1."),
    "rouge_l": ("ROUGE-L", "How much of what a model writes stands in the reference, in the same "
                "order of words, and how much of the reference in it, from 0 to 1."),
    "bleu": ("BLEU", "How much of a translation’s wording stands in the reference, from 0 to 100."),
    "chrf": ("chrF", "How many of a translation’s character sequences stand in the reference, from "
             "0 to 100."),
}  # fmt: skip
"""By the name of a metric: how it is written, and what it is."""

STRATEGIES = {
    "greedy": "A search that decides about one parameter at a time, keeps what won, and goes on to "
    "the next, as in the paper.",
    "exhaustive": "A search that trains every combination.",
    "random": "Drawn without looking at any score. As a baseline: one of the candidates of a test "
    "case; a method that cannot beat it is worth nothing. As a search: combinations drawn so.",
}
"""By the name of a strategy."""

TEACHING = (
    _term("distillation", "Training a small model, the student, to answer as a large one, the "
          "teacher, does. Also KD, knowledge distillation.", "KD"),
    _term("teacher", "The large model that the student learns from. As a decision: which of its "
          "checkpoints."),
    _term("student", "The small model that is trained.", "students"),
    _term("checkpoint", "A model as it was after one of its epochs. A teacher trained in "
          "the study has two, t_hs and t_ll, and epochs that a search names.", "checkpoints"),
    _term("starts from", "A student may go on from the best epoch of another training of the "
          "study, in place of the weights that its model has."),
    _term("self-KD", "Distillation from a teacher of the student’s own size."),
    _term("generation", "Of students that are taught by what another test case chose: how many "
          "such choices lead to it, itself included.", "generations"),
    _term("reverse KD", "Distillation from a teacher smaller than the student."),
)  # fmt: skip
_SEARCHING = (
    _term("test case", "A data set, a teacher and a student; where a study has several searches, "
          "the search too.", "test cases"),
    _term("choice", "A setting of everything that is compared, such as CE t_hs τ_s=τ_t α=1.",
          "choices"),
    _term("candidate", "A choice with the best temperature and learning rate that were found for "
          "it.", "candidates"),
    _term("trial", "A candidate at one temperature and one learning rate: what is trained.",
          "trials"),
    _term("trainings", "Models that were trained, each under one seed."),
    _term("decision", "A comparison of candidates that differ in one parameter. The highest "
          "validation score wins and is kept for the decisions after it.", "decisions"),
    _term("traversal", "All of a test case’s decisions, one after the other.", "traversals"),
    _term("second phase", "What is trained once all traversals are finished: the stable "
          "configuration and the lazy baseline in each test case."),
    _term("chosen", "What the search of a test case ends with. Decided on validation scores alone.",
          "as chosen", "won"),
    _term("default", "The first value of a parameter: what a search starts with."),
    _term("stable", "The stable configuration: for each parameter what won in more test cases than "
          "it lost, otherwise the default. One recommendation for all test cases."),
    _term("lazy", "A baseline without tuning: a choice drawn blindly, at the temperature 1, with "
          "its learning rate tuned."),
    _term("at the floor", "No student of the test case scores more on validation than takes no "
          "learning at all, such as giving one answer everywhere."),
    _term("unscored", "Compared with something that has no score."),
    _term("diverged", "The loss became infinite or no number, so there is no score; of a "
          "teacher that writes: nothing that it wrote can be learnt from."),
    _term("failed", "Tried as often as allowed, and never came to an end."),
    _term("unfinished", "Some of its trainings are still to come."),
    _term("blocked", "It cannot go on, since something it needs has failed for good."),
)  # fmt: skip
_SCORING = (
    _term("validation", "The rows that decide: a candidate, a learning rate or an epoch is chosen "
          "by its score on them."),
    _term("test", "Rows that nothing was chosen by: what a score on them says also holds for new "
          "data of this kind."),
    _term("epoch", "A pass over the training rows. Of a training, the epoch that is best on "
          "validation is kept.", "epochs"),
    _term("verdict", "How the chosen student compares with the one without a teacher, and what "
          "speaks against its numbers.", "against labels alone"),
    _term("metric", "What a score counts. Scores of different metrics cannot be compared."),
    _term("points", "The difference of two scores, where the largest possible score is 100."),
    _term("over ERM", "By how much the chosen student is better than the same student trained "
          "without a teacher. Below 0, plain training is better.", "points over ERM"),
    _term("gap closed", "The way from the student without a teacher (0 %) to the teacher (100 %) "
          "that the chosen student has come.", "gap"),
    _term("gain", "By how much one test score is above another, in percent of the other.", "gains",
          "gain, %"),
    _term("±", "A standard deviation: about two times out of three, a repetition lies within "
          "it. The text beside a table says what is repeated: the draw of the test rows, the "
          "training under another seed, or both.", "± seeds"),
    _term("± noise", "How far a gain may lie from what other test rows (and seeds) would give, as "
          "a standard deviation. A difference of less than two of these may be luck.", "noise",
          "within the noise"),
    _term("seed", "The number that decides what is random in a training. Two seeds, two results.",
          "seeds"),
    _term("outputs", "What a teacher says of every row, kept for its students to learn from."),
    _term("kept of the teacher’s outputs", "In place of all it says: so many draws of a token by "
          "its probabilities (sampled), right on average; or its likeliest tokens (top_k), with "
          "the probability that they have together, all others as one.",
          "Kept of the teacher’s outputs"),
    _term("sequences", "Texts that a teacher wrote in the place of the labels, on which its "
          "students learn."),
    _term("parameters", "The size of a model: how many numbers it has."),
    _term("size", "The student’s parameters as a share of its teacher’s."),
    _term("speed", "How many rows the student scores in the time that its teacher takes for one."),
    _term("on the front", "No model of this data set is both smaller and better.", "front"),
    _term("MB", "Megabytes of a model’s weights, in full precision."),
    _term("examples/s", "How many rows per second a model scored on its worker. It depends on the "
          "machine and on what else it did, so that small differences mean nothing."),
)  # fmt: skip
_COUNTING = (
    _term("n", "The number of test cases in a row."),
    _term("D0 to D10", "Deciles. The test cases’ gains in order: D0 is the smallest, D5 the middle "
          "one (the median), D10 the largest.", *(f"D{k}" for k in range(11)), "deciles"),
    _term("median, 95 %", "Where the median may lie if other test cases of this kind were taken "
          "(95 % interval)."),
    _term("p", "How likely a result this strong would be if neither side were better. Only a small "
          "p (below 0.05) speaks against luck."),
    _term("ρ", "Spearman’s rank correlation: whether what is higher in one quantity is higher in "
          "the other too. 1 is the same order, −1 the reverse, 0 neither."),
    _term("least p", "The smallest p that so many test cases can give. Above 0.05, nothing can be "
          "told from luck, however the cases go."),
    _term("untied block", "Test cases of one data set and one teacher, counted as one, whose "
          "results do not balance out.", "untied blocks"),
    _term("R", "Reward: in how many test cases the alternative beats the default on validation, "
          "less those where it loses.", "reward"),
    _term("alternative", "A value that is compared with the default."),
    _term("reading", "What p says, in words."),
    _term("left out", "Test cases, or blocks of them, that a row does not count."),
    _term("nats", "The unit of entropy."),
    _term("95 % t interval", "Where a mean over seeds may lie if other seeds were taken. An effect "
          "is seen where it does not hold 0."),
    _term("plateau", "From this temperature on, higher ones bring no more than seeds differ by.",
          "plateau from τ"),
    _term("entropies", "How undecided a teacher is, from 0 to 1: of all classes, and behind the "
          "stroke of those without its most probable one."),
)  # fmt: skip


def glossary(
    agenda: Agenda, text: str, measures: Sequence[str] = ()
) -> list[tuple[str, list[Term]]]:
    """The terms of a report in groups, each with its title.

    Of parameters, metrics and `measures`, whose names are common words, those that the study has;
    of all else what stands in the report's `text`.
    """
    found = {
        "Teacher and student": [*TEACHING, *_objectives(), *_checkpoints(agenda)],
        "Parameters": [*_axes(agenda)],
        "Search": [*_strategies(agenda), *_SEARCHING],
        "Scores": [*_SCORING, *_metrics(agenda), *_measures(measures)],
        "Statistics": [*_COUNTING],
    }
    words = set(_WORD.findall(text))
    kept = {
        title: [term for term in terms if any(_occurs(form, text, words) for form in term.forms)]
        for title, terms in found.items()
    }
    return [(title, terms) for title, terms in kept.items() if terms]


_WORD = re.compile(r"\w+")


def _occurs(form: str, text: str, words: Container[str]) -> bool:
    return form in words or (not form.isidentifier() and form in text)


def _objectives() -> Iterator[Term]:
    for kind, text in OBJECTIVES.items():
        yield _term(Objective.kinds[kind].title, text, *_ALSO.get(kind, ()))


def _checkpoints(agenda: Agenda) -> Iterator[Term]:
    used = {name for view in agenda.views() for name in view.outputs}
    for checkpoint, text in CHECKPOINTS.items():
        if checkpoint in (Checkpoint.HIGHEST_SCORE, Checkpoint.LOWEST_LOSS) or checkpoint in used:
            yield _term(checkpoint.value, text)
    for checkpoint in sorted(used):
        if checkpoint.epoch is not None:
            yield _term(
                checkpoint.value, f"The teacher as it was after its epoch {checkpoint.epoch}."
            )


def _axes(agenda: Agenda) -> Iterator[Term]:
    spaces = [view.space for view in agenda.views()]
    used = {name for space in spaces for name in space.names}
    kinds = {kind for space in spaces for kind in space.values(OBJECTIVE)}
    # What is added to an objective is told of where it is tried.
    used = used.union(*(parameters_of(kind) - Objective.kinds[kind].sparse for kind in kinds))
    used |= {name for space in spaces for name, value in space.fixed if value != "none"}
    for name, text in AXES.items():
        if name in used:
            words, symbol = name.replace("_", " "), SYMBOLS.get(name)
            yield _term(symbol or words, text, words, name, *_FORMS.get(name, ()))


def _strategies(agenda: Agenda) -> Iterator[Term]:
    used = {search.strategy for search in agenda.resolved.study.every_search.values()}
    for name, text in STRATEGIES.items():
        if name in used or name == "random":
            yield _term(name, text)


def _metrics(agenda: Agenda) -> Iterator[Term]:
    used = {m for data in agenda.resolved.datasets.values() for m in (data.metric, *data.also)}
    for name, (title, text) in METRICS.items():
        if name in used:
            yield _term(title, text)


def _measures(names: Sequence[str]) -> Iterator[Term]:
    for name in names:
        if name in MEASURES:  # a folder from elsewhere may have any
            yield _term(name.replace("_", " "), MEASURES[name])


def glossary_section(agenda: Agenda, text: str, measures: Sequence[str]) -> list[str]:
    """The section of report.md."""
    terms = [term for _, terms in glossary(agenda, text, measures) for term in terms]
    lines = [f"- **{escape(term.name)}**: {escape(term.text)}" for term in terms]
    return ["## Glossary", "\n".join(lines)]
