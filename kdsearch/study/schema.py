"""The study file: what a user may write, typed, with the paper's values as defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
)

from kdsearch.search import Checkpoint, Labels
from kdsearch.study.asked import ASKED
from kdsearch.study.axes import LISTED, distinct
from kdsearch.study.layers import Layers
from kdsearch.study.resources import LABEL_PATTERNS, Resources
from kdsearch.study.search import RATES, Rates, Search
from kdsearch.study.section import PositiveInt, Section, Unread, as_far_as_read
from kdsearch.study.settings import FORWARD, StudentChanges, TrainingChanges, TrainingSettings
from kdsearch.study.tasks import SPECS, TaskName, TaskSpec

_NAME = r"^[^/\\\p{C}\p{Zl}\p{Zp}]*[^/\\\p{C}\p{Z}.][^/\\\p{C}\p{Zl}\p{Zp}]*$"
Name = Annotated[str, Field(pattern=_NAME, max_length=60)]
"""Of a data set, a model, a teacher or a student: test cases are called dataset/teacher/student,
and `fetch` makes folders of these names, so that none is `..` or too long for a disk."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
_STUDY = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
"""Of a path on the Hub."""
_HUB = rf"^{_PART}(/{_PART})?$"
_REVISION = rf"^{_PART}(/{_PART})*$"
PATTERNS = {
    _NAME: ("not a valid name", "use no / or \\, and not only dots and spaces"),
    _STUDY: (
        "not a name for a study",
        "use letters, digits and . _ -, beginning with a letter or a digit",
    ),
    _HUB: (
        "not an id of the Hugging Face Hub",
        "use NAME or OWNER/NAME, of letters, digits and . _ -; a folder begins with / or ./",
    ),
    _REVISION: ("not a revision of the Hub", "use letters, digits and . _ - /"),
    **LABEL_PATTERNS,
}
"""What a text that does not match is not, and what would."""
SPLITS = ("train", "validation", "test")
ERM = "erm"
"""The search of students that learn from the labels alone: empirical risk minimisation."""


def _names(value: object) -> object:
    if isinstance(value, list):
        return tuple(value)  # as it comes from JSON, which a strict tuple no longer accepts here
    return (value,) if isinstance(value, str) else value


def _model(value: object) -> object:
    if not isinstance(value, str):
        return value
    # An id of the Hub has one slash at most.
    path = value.startswith(("/", "./", "../", "~")) or value.count("/") > 1
    return {"path" if path else "hub": value}


def _finite(value: object) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(map(_finite, parts)) and (not isinstance(value, float) or math.isfinite(value))


OfAny = Annotated[tuple[str, ...], BeforeValidator(_names)]
Names = Annotated[OfAny, Field(min_length=1)]


FileSource = str | tuple[str, ...] | dict[str, str]


def _file_source(value: object) -> FileSource:
    match value:
        case str():
            return value
        case dict() if value and all(isinstance(path, str) for path in value.values()):
            return value
        case list() | tuple() if value and all(isinstance(path, str) for path in value):
            return tuple(value)
    raise ValueError("expected a path, a list of paths, or text files by the names of columns")


def _of_row(value: object) -> str | tuple[str, ...]:
    match value:
        case str() if value:
            return value
        case list() | tuple() if all(isinstance(each, str) for each in value):
            return tuple(each.strip() for each in value)
    raise ValueError("expected the name of a column, or a list of texts")


class Files(Section):
    """Of each split a file, a pattern such as train-*.parquet, a list of these, or a folder.

    What kinds there are stands in `study/files.py`; of images also a folder with a folder for each
    class (`study/class_folders.py`). A mapping of columns to text files names those
    that belong together line by line: {german: train.de, english: train.en}. About a tenth of the
    training rows, drawn by the study's seed, serves as a split that is left out.
    """

    train: Annotated[FileSource, BeforeValidator(_file_source)]
    validation: Annotated[FileSource, BeforeValidator(_file_source)] | None = None
    test: Annotated[FileSource, BeforeValidator(_file_source)] | None = None


class Limit(Section):
    """The most rows to keep of each split, drawn by the study's seed."""

    train: PositiveInt | None = None
    validation: PositiveInt | None = None
    test: PositiveInt | None = None


class Grammar(Section):
    """Rows of a small grammar for the data set's task, generated from a seed."""

    train: Annotated[int, Field(gt=0, le=1_000_000)]
    validation: Annotated[int, Field(gt=0, le=1_000_000)]
    test: Annotated[int, Field(gt=0, le=1_000_000)]
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of the training labels that are drawn at random."""
    seed: Seed = 0


class Dataset(Section):
    """A data set: one of the catalogue by its name, one's own files, or a generated one."""

    catalogue: str | None = None
    """The catalogue's name of it, where the study calls it differently."""
    files: Files | None = None
    grammar: Grammar | None = None
    task: TaskName | None = None
    """Default: the catalogue's; of one's own files and of a generated one, classification."""
    text: Annotated[Names, Field(max_length=2)] | None = None
    """The column or columns that a model reads; `a.b` is the field b of the column a.

    classification: a sentence, or the two of a pair; ner: the words; qa: question and context;
    translation: the source; lm: the prompt, text or messages; image_classification: the image,
    by its path or as bytes (default: image).
    """
    label: str | None = None
    """The column of what a model should say: label, tags, answers, translation or completion.

    lm: where it is the column of the messages itself, the last of them; where there are choices,
    the right one: its text, its letter or its number, counted from 0.
    """
    prompt: Annotated[str, Field(min_length=1)] | None = None
    """lm: in place of `text`, the prompt with `{column}` for what a row has in a column.

    A space is put between prompt and completion, as with choices, where neither has one there.
    """
    choices: Annotated[str | tuple[str, ...], BeforeValidator(_of_row)] | None = None
    """lm: the column of a row's choices, or the choices of every row: [no, yes]."""
    answer: Annotated[str, Field(min_length=1)] | None = None
    """lm: a regular expression that finds the final answer, in its group if it has one.

    Of several matches the last. Default: what stands behind the last ####, or all of a text.
    """
    labels: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The labels' names, in the order of their numbers in the data.

    ner: the tags (O, B-PER, I-PER, …); where they are left out, those of the data, or of its given
    teachers if they have more. image_classification: where they are left out, those that occur.
    """
    metric: str | None = None
    """One of the task's. Default: the first of them."""
    also: OfAny = ()
    """Further metrics of the task, which are measured on test and decide nothing.

    No key covers them: what was trained before one was named has no such score.
    """
    languages: tuple[str, str] | None = None
    """translation: the source's and the target's code in a multilingual tokenizer (de_DE)."""
    unanswerable: bool = False
    """qa: a question may have no answer, as in SQuAD 2.

    Default: such rows of one's own files are left out.
    """
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    """image_classification: the side, in pixels, of the square that is kept of each image.

    Default: the images' own, where all have the same width and height and it is at most 224; else
    224. Of an image that is not square the middle is kept.
    """
    max_length: PositiveInt | None = None
    """In tokens. Default: that of `training`."""
    training: TrainingChanges = Field(default_factory=dict)
    """What differs from the study's settings, of its teachers and students."""
    learning_rate: Annotated[Rates, AfterValidator(distinct)] | None = None
    """Of its students. Default: the search's."""
    limit: Limit = Limit()
    group: str | None = None
    """files: the column that says which training rows belong together, so that no validation or
    test split that is drawn parts them. Default: the context of qa, the first of a pair of
    sentences, else the text. Where test rows have it, those of a group are drawn together for the
    noise of a gain. No key covers it, only the rows that it leads to."""

    def problems(self) -> Iterator[str]:
        """See `Section`."""
        checks = (self._sources, self._grammar, self._group, self._task, self._lengths, self._names)
        return as_far_as_read(*(check() for check in checks))

    @property
    def _given(self) -> list[str]:
        return [n for n in ("catalogue", "files", "grammar") if getattr(self, n) is not None]

    def _sources(self) -> Iterator[str]:
        if len(self._given) > 1:
            yield f"{' and '.join(self._given)} exclude each other; keep one"

    def _grammar(self) -> Iterator[str]:
        own = (self.text, self.label, self.labels, self.prompt, self.choices)
        if self._given == ["grammar"] and any(each is not None for each in own):
            names = "text, label, labels, prompt, choices"
            yield f"a grammar has its own columns and labels; remove {names}"

    def _group(self) -> Iterator[str]:
        if self.group is not None and self.files is None:
            yield "group says how splits are drawn from your own files; remove it"

    def _task(self) -> Iterator[str]:
        given = self._given
        own = given in (["files"], ["grammar"])
        task = self.task or ("classification" if own else None)
        if task is None or len(given) > 1:
            return
        needed = SPECS[task].needed if given == ["files"] else ()
        if self.prompt is not None:
            needed = tuple(name for name in needed if name != "text")
        if missing := [name for name in needed if vars(self).get(name, "") is None]:
            guessed = "" if self.task else "; of images, set task: image_classification"
            yield f"files of {task} need {', '.join(missing)}{guessed}"
        yield from self.task_problems(task)

    def _lengths(self) -> Iterator[str]:
        if self.max_length is not None and "max_length" in self.training:
            yield "max_length is given here and in training; keep one"

    def _names(self) -> Iterator[str]:
        if self.labels and len(set(self.labels)) < len(self.labels):
            yield "two labels have the same name"

    def task_problems(self, task: str) -> Iterator[str]:
        """The keys that do not go with `task`."""
        spec = SPECS[task]
        checks = (
            *(self._metric, self._also, self._columns, self._labels, self._languages),
            *(self._unanswerable, self._images),
        )
        of_task = (check(task, spec) for check in checks)
        return as_far_as_read(*of_task, *(check(self, task) for check in ASKED))

    def _metric(self, task: str, spec: TaskSpec) -> Iterator[str]:
        if self.metric is not None and self.metric not in spec.metrics:
            yield f"the metric of {task} is one of {', '.join(spec.metrics)}"

    def _also(self, task: str, spec: TaskSpec) -> Iterator[str]:
        others = [name for name in spec.metrics if name != (self.metric or spec.metrics[0])]
        if not {*self.also} <= {*others} or len({*self.also}) < len(self.also):
            yield f"also names further metrics of {task}, each once: {', '.join(others)}"

    def _columns(self, task: str, spec: TaskSpec) -> Iterator[str]:
        if self.text is not None and len(self.text) not in spec.columns:
            counts = " or ".join(map(str, spec.columns))
            yield f"the text of {task} names {counts} column{'s' * (counts != '1')}"

    def _labels(self, task: str, spec: TaskSpec) -> Iterator[str]:
        if self.labels is not None and spec.fewest_labels == 0:
            yield f"{task} has no labels; remove them"
        elif self.labels is not None and len(self.labels) < spec.fewest_labels:
            yield f"{task} needs at least {spec.fewest_labels} labels"

    def _languages(self, task: str, spec: TaskSpec) -> Iterator[str]:
        if self.languages is not None and not spec.has_languages:
            yield f"{task} has no languages; remove them"

    def _unanswerable(self, task: str, spec: TaskSpec) -> Iterator[str]:
        if self.unanswerable and not spec.has_unanswerable:
            yield f"{task} has no unanswerable questions; remove unanswerable"

    def _images(self, task: str, spec: TaskSpec) -> Iterator[str]:
        if self.image_size is not None and spec.reads != "pixels":
            images = "image_classification"
            yield f"{task} reads no images: set task: {images}, or remove image_size"
        if self.max_length is not None and spec.reads == "pixels":
            yield "max_length counts tokens, which images do not have; remove it"


class Model(Section):
    """Where a model comes from: a folder, the Hugging Face Hub, or a configuration at random."""

    path: Annotated[str, Field(min_length=1)] | None = None
    hub: Annotated[str, Field(pattern=_HUB, max_length=200)] | None = None
    revision: Annotated[str, Field(pattern=_REVISION, max_length=200)] | None = None
    """A commit of the Hub's repository."""
    trust_remote_code: bool = False
    """Run the Python files that come with the model, which can do anything on this machine.

    Without it such a model is refused. Of a folder or of the Hub.
    """
    weights: Literal["random"] | None = None
    """Of a folder or of the Hub: random takes the model's architecture and its tokenizer, and draws
    the weights by a training's seed. Default: its own."""
    config: dict[str, Any] | None = None
    """The fields of a transformers configuration, `model_type` among them."""
    tokenizer: str = "words"
    """Of a model at random: `words` (from the training split), or a model of this study.

    Of images: whose mean and deviation they are normalised by; `words` stands for ½ and ½.
    """

    def problems(self) -> Iterator[str]:
        """See `Section`."""
        checks = (self._sources, self._configuration, self._trust, self._revision, self._tokenizer)
        return as_far_as_read(*(check() for check in checks))

    @property
    def random(self) -> bool:
        """Whether its weights are drawn."""
        return self.config is not None or self.weights == "random"

    @property
    def _given(self) -> list[str]:
        return [name for name in ("path", "hub", "config") if getattr(self, name) is not None]

    def _sources(self) -> Iterator[str]:
        if len(self._given) != 1:
            yield "give exactly one of path, hub and config"

    def _configuration(self) -> Iterator[str]:
        if self.config is None:
            return
        if self.weights is not None:
            yield "a config has no weights but random ones; remove weights"
        if not isinstance(self.config.get("model_type"), str):
            yield "config needs a model_type, such as bert"
        if not _finite(self.config):
            yield "config has a number that is not finite"

    def _trust(self) -> Iterator[str]:
        if self._given == ["config"] and self.trust_remote_code:
            yield "a config comes without code; remove trust_remote_code"

    def _revision(self) -> Iterator[str]:
        if self._given and self.hub is None and self.revision is not None:
            yield "revision goes with hub; remove it"

    def _tokenizer(self) -> Iterator[str]:
        if self._given and self.config is None and self.tokenizer != "words":
            yield "a pretrained model has its own tokenizer; remove tokenizer"


class FineTune(Section):
    """How a teacher is fine-tuned. Of several learning rates the best validation score wins."""

    learning_rate: Rates = (1e-5, 2e-5, 3e-5)
    epochs: PositiveInt | None = None
    """Default: the epochs of `training`."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of its labels that is spread evenly over all classes. Its validation loss, which
    chooses t_ll, is on the labels as they are."""


class Teacher(Section):
    """A teacher: a model to fine-tune here, one or two that are given, or a student."""

    model: str | None = None
    layers: Layers | None = None
    """Which of the model's to keep. Default: all."""
    fine_tune: FineTune = FineTune()
    training: TrainingChanges = Field(default_factory=dict)
    """What differs from the settings of the study and of the data set, its outputs' too."""
    checkpoint: str | None = None
    """A model of this study that is already fine-tuned; stage t is then skipped."""
    t_hs: str | None = None
    t_ll: str | None = None
    student_of: str | None = None
    """Another teacher of this study: this one is, of each data set, student and search, the student
    that the test case with that other teacher chose, under the first seed."""
    labels: tuple[str, ...] | None = None
    """The names of a given teacher's outputs, where its own configuration does not name them.

    They cannot contradict those that it has.
    """

    def problems(self) -> Iterator[str]:
        """See `Section`."""
        checks = (self._forms, self._outputs, self._tuning, self._layers, self._settings)
        return as_far_as_read(*(check() for check in checks), self._epochs())

    @property
    def single_form(self) -> bool:
        """Whether one thing is said of where it comes from."""
        pair = self.t_hs is not None and self.t_ll is not None
        single = (self.model, self.checkpoint, self.student_of)
        return [pair, *(name is not None for name in single)].count(True) == 1

    @property
    def _what(self) -> str | None:
        """What it is called where it is not fine-tuned here; None of one that is."""
        if not self.single_form or self.model is not None:
            return None
        return "a given teacher" if self.given else "a student that teaches"

    def _forms(self) -> Iterator[str]:
        if (self.t_hs is None) != (self.t_ll is None):
            yield "t_hs and t_ll go together; call a single one checkpoint"
        elif not self.single_form:
            yield "give exactly one of model, checkpoint, student_of, and the pair t_hs and t_ll"

    def _outputs(self) -> Iterator[str]:
        if self.single_form and not self.given and self.labels is not None:
            yield "labels name the outputs of a given teacher; remove them"

    def _tuning(self) -> Iterator[str]:
        if self._what and self.fine_tune != FineTune():
            yield f"{self._what} is not fine-tuned; remove fine_tune"

    def _layers(self) -> Iterator[str]:
        if self._what and self.layers is not None:
            yield f"{self._what} is used whole; remove layers"

    def _settings(self) -> Iterator[str]:
        if self._what and (unused := sorted(self.training.keys() - {*FORWARD})):
            again = " again" if self.student_of is not None else ""
            yield f"{self._what} is not trained{again}; remove {', '.join(unused)} from training"

    def _epochs(self) -> Iterator[str]:
        fine_tuned = self.single_form and not self._what
        if fine_tuned and self.fine_tune.epochs is not None and "epochs" in self.training:
            yield "epochs is given in fine_tune and in training; keep one"

    @property
    def given(self) -> dict[Checkpoint, str]:
        """The given checkpoints, by the name they have in a search; empty of any other teacher."""
        names = {
            Checkpoint.HIGHEST_SCORE: self.t_hs,
            Checkpoint.LOWEST_LOSS: self.t_ll,
            Checkpoint.GIVEN: self.checkpoint,
        }
        return {checkpoint: name for checkpoint, name in names.items() if name is not None}

    @property
    def there(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that it has whatever a search names; none of one that is fine-tuned."""
        return tuple(self.given) if self.student_of is None else (Checkpoint.WINNER,)


class Student(Section):
    """A student: a model of this study, or some layers of it."""

    model: str
    layers: Layers | None = None
    """Which to keep: `3`, evenly spaced, the last among them; `first 3`, `last 3`; `0+2+4`.
    Default: all."""
    start: str | None = None
    """A teacher of this study with the same model and layers: the student starts from the best
    epoch of its training on the same data set. Default: from the model's own weights."""
    training: StudentChanges = Field(default_factory=dict)
    """What differs from the settings of the study and of the data set."""
    learning_rate: Annotated[Rates, AfterValidator(distinct)] | None = None
    """Default: the data set's, else the search's."""


class TestCases(Section):
    """Every combination of these; a field left out means all of them."""

    part: Name | None = None
    """Of the study, such as one of its questions: `plan` sums up what each part costs."""
    dataset: Names | None = None
    teacher: Names | None = None
    student: Names | None = None
    search: Names | None = None
    """Of the study's `searches`."""


def _several(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(seeds) < 2:
        raise ValueError("must be a list of at least two seeds, such as [0, 1, 2]")
    return seeds


class Study(Section):
    """A study file."""

    name: Annotated[str, Field(pattern=_STUDY, max_length=100)]
    seed: Seed = 0
    """Of the teachers, the students, the rows that are drawn, the views of images and the draws of
    baselines."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(distinct)] | None = None
    """Students are trained under each of these, and scores are means; `seed` is the first."""
    winner_seeds: (
        Annotated[tuple[Seed, ...], AfterValidator(_several), AfterValidator(distinct)] | None
    ) = None
    """What each test case chose is trained under each of these too, for its test score as mean and
    spread; `seed` is the first. No search sees what comes of it."""
    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    models: Annotated[dict[Name, Annotated[Model, BeforeValidator(_model)]], Field(min_length=1)]
    """Each a folder, a Hub id, or a mapping."""
    teachers: Annotated[dict[Name, Teacher], Field(min_length=1)]
    students: Annotated[dict[Name, Student], Field(min_length=1)]
    test_cases: Annotated[tuple[TestCases, ...], Field(min_length=1)] = (TestCases(),)
    search: Search = Search()
    searches: dict[Name, Search] | None = None
    """Several, by their names, in place of `search`."""
    learning_rate: Annotated[Annotated[Rates, AfterValidator(distinct)] | None, LISTED] = None
    """Of the students in every search that has none of its own. Default: the paper's."""
    training: TrainingSettings = TrainingSettings()
    erm: bool = False
    """Train each student on the labels alone too: short for a search of that name, which has the
    objective labels and is exhaustive."""
    resources: Resources = Resources()
    keep_students: Literal["best", "none", "all"] = "best"
    """Whose weights stay on disk, for `export`. best: of each test case the winner's."""
    tries: PositiveInt = 2
    """How often a training that fails is tried in all; one that diverges is not tried again."""

    def problems(self) -> Iterator[str]:
        """See `Section`."""
        return as_far_as_read(self._named(), self._first_seed(), self._first_winner_seed())

    def _named(self) -> Iterator[str]:
        if self.searches == {}:
            yield "searches is empty; name one, or remove it"
        if self.searches and ERM in self.searches and self.erm:
            yield f"erm is short for a search called {ERM}, which is there already; keep one"

    def _first_seed(self) -> Iterator[str]:
        if self.seeds is not None and self.seed != self.seeds[0]:
            yield "seed is the first of seeds; remove it"

    def _first_winner_seed(self) -> Iterator[str]:
        if self.winner_seeds is not None and self.seed != self.winner_seeds[0]:
            yield (
                f"the first of winner_seeds is the search's first seed, {self.seed}, so that "
                "its training serves both; begin with it"
            )

    @cached_property
    def every_search(self) -> Mapping[str | None, Search]:
        """The searches by their names; None is that of a study with a single one."""
        found: dict[str | None, Search] = {}
        if self.searches:
            found.update(self.searches)
        else:
            found[None] = self.search
        with suppress(Unread):
            if self.erm:
                optimizer = self.training.optimizer
                single = self.search.rates_of(optimizer) if None in found else None
                rates = single or self.learning_rate or RATES
                kinds = (Labels.kind,)
                found[ERM] = Search(strategy="exhaustive", distance=kinds, learning_rate=rates)
        return found

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The same with other values; its searches are its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("every_search", None)
        return copied

    @property
    def student_seeds(self) -> tuple[int, ...]:
        """The seeds that each trial is trained under."""
        return self.seeds or (self.seed,)

    @property
    def further_seeds(self) -> tuple[int, ...]:
        """The seeds that nothing but what a test case chose is trained under."""
        return tuple(s for s in self.winner_seeds or () if s not in self.student_seeds)
