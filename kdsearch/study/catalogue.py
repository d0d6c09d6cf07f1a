"""The data sets that kdsearch knows by name: where they are, their columns, labels and metric."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kdsearch.study.entry import Convert, Part
from kdsearch.study.entry import Entry as Entry
from kdsearch.study.image_catalogue import IMAGES

_EXPORT = "refs/convert/parquet"
"""The branch to which the Hub exports repositories that are scripts, which no longer load."""

UNPINNED = {
    "eriktks/conll2002",
    "eriktks/conll2003",
    "facebook/mlqa",
    "lucasmccabe/logiqa",
    "tner/ontonotes5",
    "wmt/wmt16",
}
"""Read from a branch: no commit of theirs is known that holds the files named here."""

_PAWS_X = ("de", "en", "es", "fr", "ja", "ko", "zh")
_XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
_MLQA = ("ar", "de", "en", "es", "hi", "vi", "zh")


def _nearest(context: str, text: str, start: int) -> int:
    """Where the context has the text: at `start`, else at the occurrence that is nearest to it."""
    if context.startswith(text, start):
        return start
    found = (match.start() for match in re.finditer(f"(?={re.escape(text)})", context))
    return min(found, key=lambda at: abs(at - start), default=start)


def corrected(row: dict[str, Any]) -> dict[str, Any]:
    """A row in SQuAD's form with offsets that hit their answers.

    The Hub's TyDiQA has lost the spaces before many contexts, which its offsets still count.
    """
    answers = row["answers"]
    pairs = zip(answers["text"], answers["answer_start"], strict=True)
    starts = [_nearest(row["context"], text, start) for text, start in pairs]
    return {**row, "answers": {"text": list(answers["text"]), "answer_start": starts}}


def from_mrqa(row: dict[str, Any]) -> dict[str, Any]:
    """A row of MRQA in SQuAD's form, each place of an answer an answer of its own."""
    context, found = row["context"], row["detected_answers"]
    texts, starts = [], []
    for text, spans in zip(found["text"], found["char_spans"], strict=True):
        for start, end in zip(spans["start"], spans["end"], strict=True):
            here = context[start : end + 1]  # a span's end belongs to it
            if here.lower() != text.lower() and text in context:
                here, start = text, _nearest(context, text, start)
            # else the context's spelling, since MRQA normalises the answers of some subsets
            texts.append(here)
            starts.append(start)
    answers = {"text": texts, "answer_start": starts}
    return {"question": row["question"], "context": context, "answers": answers}


def _glue(config: str, split: str) -> tuple[Part, ...]:
    revision = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
    return (Part(hub="nyu-mll/glue", config=config, split=split, revision=revision),)


def _paws_x(split: str) -> tuple[Part, ...]:
    hub, revision = "google-research-datasets/paws-x", "4cd8187c404bda33cb1f62b49b001115862acf37"
    return tuple(Part(hub=hub, config=c, split=split, revision=revision) for c in _PAWS_X)


def _xnli(split: str, languages: tuple[str, ...]) -> tuple[Part, ...]:
    hub, revision = "facebook/xnli", "b8dd5d7af51114dbda02c0e3f6133f332186418e"
    # a configuration would load its language's 392,702 translated training rows too
    return tuple(
        Part(hub=hub, split=split, revision=revision, data_files=f"{c}/{split}-*.parquet")
        for c in languages
    )


def _mrqa(subset: str, split: str) -> tuple[Part, ...]:
    return (
        Part(
            hub="mrqa-workshop/mrqa",
            config="plain_text",
            split=split,
            revision="f3178d9888471dfb2b67c93de14f0ddf499a8d9f",
            keep=("subset", subset),
            convert=from_mrqa,
        ),
    )


def _mlqa(split: str) -> tuple[Part, ...]:
    return tuple(_export("facebook/mlqa", f"mlqa.{c}.{c}", split, convert=corrected) for c in _MLQA)


def _tydiqa(split: str) -> tuple[Part, ...]:
    return (
        Part(
            hub="google-research-datasets/tydiqa",
            config="secondary_task",
            split=split,
            revision="da78f23f9119363459acbaf46bf89426ff26c259",
            convert=corrected,
        ),
    )


def _conll(split: str) -> tuple[Part, ...]:
    # the numbers of the tags mean the same in both repositories
    return (
        _export("eriktks/conll2003", "conll2003", split),
        _export("eriktks/conll2002", "es", split),
        _export("eriktks/conll2002", "nl", split),
    )


def _wmt16(config: str, split: str) -> tuple[Part, ...]:
    return (Part(hub="wmt/wmt16", config=config, split=split, revision="main"),)


def _arc(config: str, split: str) -> tuple[Part, ...]:
    revision = "210d026faf9955653af8916fad021475a3f00453"
    return (Part(hub="allenai/ai2_arc", config=config, split=split, revision=revision),)


def _gsm8k(split: str) -> tuple[Part, ...]:
    revision = "cc7b047b6e5bb11b4f1af84efc572db110a51b3c"
    return (Part(hub="openai/gsm8k", config="main", split=split, revision=revision),)


def _openbookqa(split: str) -> tuple[Part, ...]:
    revision = "388097ea7776314e93a529163e0fea805b8a6454"
    return (Part(hub="allenai/openbookqa", config="main", split=split, revision=revision),)


def _aqua(split: str) -> tuple[Part, ...]:
    revision = "33301c6a050c96af81f63cad5562cb5363e88971"
    return (Part(hub="deepmind/aqua_rat", config="raw", split=split, revision=revision),)


def _boolq(split: str) -> tuple[Part, ...]:
    revision = "35b264d03638db9f4ce671b711558bf7ff0f80d5"
    return (Part(hub="google/boolq", split=split, revision=revision),)


def _export(hub: str, config: str, split: str, convert: Convert | None = None) -> Part:
    """A split of a repository that is a script, by the Hub's export of it."""
    files = f"{config}/{split}/*.parquet"
    return Part(hub=hub, split=split, revision=_EXPORT, data_files=files, convert=convert)


CATALOGUE: Mapping[str, Entry] = {
    # Dolan & Brockett 2005, as in GLUE; its test labels are public.
    # {"sentence1": "He said …", "sentence2": "… , he said .", "label": 1, "idx": 0}
    "mrpc": Entry(
        task="classification",
        text=("sentence1", "sentence2"),
        label="label",
        labels=("not_equivalent", "equivalent"),
        metric="f1",
        rows={"train": 3_668, "validation": 408, "test": 1_725},
        parts={split: _glue("mrpc", split) for split in ("train", "validation", "test")},
        output_rows=1,
        note="GLUE's splits.",
    ),
    # Williams et al. 2018, as in GLUE.
    # {"premise": "The shop was shut.", "hypothesis": "It was open.", "label": 2, "idx": 0}
    "mnli": Entry(
        task="classification",
        text=("premise", "hypothesis"),
        label="label",
        labels=("entailment", "neutral", "contradiction"),
        metric="f1",
        rows={"train": 382_887, "validation": 9_815, "test": 9_815},
        parts={"train": _glue("mnli", "train"), "test": _glue("mnli", "validation_matched")},
        cut={"validation": 9_815},
        output_rows=1,
        note="Validation is cut off GLUE's train; test is GLUE's matched validation.",
    ),
    # Wang et al. 2019 (GLUE), made of SQuAD.
    # {"question": "Who won?", "sentence": "The game was long.", "label": 1, "idx": 0}
    "qnli": Entry(
        task="classification",
        text=("question", "sentence"),
        label="label",
        labels=("entailment", "not_entailment"),
        metric="f1",
        rows={"train": 99_743, "validation": 5_000, "test": 5_463},
        parts={"train": _glue("qnli", "train"), "test": _glue("qnli", "validation")},
        cut={"validation": 5_000},
        output_rows=1,
        note="Validation is cut off GLUE's train; test is GLUE's validation.",
    ),
    # Socher et al. 2013, as in GLUE.
    # {"sentence": "a film to forget", "label": 0, "idx": 0}
    "sst2": Entry(
        task="classification",
        text=("sentence",),
        label="label",
        labels=("negative", "positive"),
        metric="f1",
        rows={"train": 65_549, "validation": 872, "test": 1_800},
        parts={"train": _glue("sst2", "train"), "validation": _glue("sst2", "validation")},
        cut={"test": 1_800},
        output_rows=1,
        note="Validation is GLUE's; test is cut off GLUE's train, parts of whose phrases stay in "
        "train.",
    ),
    # Yang et al. 2019; train is translated from English.
    # {"id": 1, "sentence1": "Anna met Ben .", "sentence2": "Ben met Anna .", "label": 0}
    "paws_x": Entry(
        task="classification",
        text=("sentence1", "sentence2"),
        label="label",
        labels=("not_paraphrase", "paraphrase"),
        metric="f1",
        rows={"train": 345_807, "validation": 14_000, "test": 14_000},
        parts={split: _paws_x(split) for split in ("train", "validation", "test")},
        output_rows=1,
        note="The official splits of the seven languages together.",
    ),
    # Conneau et al. 2018; train is MNLI's.
    # {"premise": "Der Laden war zu.", "hypothesis": "Er war offen.", "label": 2}
    "xnli": Entry(
        task="classification",
        text=("premise", "hypothesis"),
        label="label",
        labels=("entailment", "neutral", "contradiction"),
        metric="f1",
        rows={"train": 392_702, "validation": 37_350, "test": 75_150},
        parts={
            "train": _xnli("train", ("en",)),
            "validation": _xnli("validation", _XNLI),
            "test": _xnli("test", _XNLI),
        },
        output_rows=1,
        note="Train is English; validation and test are all fifteen languages.",
    ),
    # Rajpurkar et al. 2016, in the form of MRQA 2019; so once converted:
    # {"question": "Who won?", "context": "Red won.", "answers": {"text": ["Red"],
    #  "answer_start": [0]}}
    "squad": Entry(
        task="qa",
        text=("question", "context"),
        label="answers",
        metric="f1",
        rows={"train": 76_081, "validation": 10_507, "test": 10_507},
        parts={"train": _mrqa("SQuAD", "train"), "test": _mrqa("SQuAD", "validation")},
        cut={"validation": 10_507},
        output_rows=165,
        note="SQuAD 1.1 as in MRQA 2019: validation is cut off its train; test is its dev.",
    ),
    # Kwiatkowski et al. 2019, in the form of MRQA 2019; so once converted:
    # {"question": "where is it", "context": "<P> In Rome . </P>", "answers": {"text": ["Rome"],
    #  "answer_start": [7]}}
    "natural_questions": Entry(
        task="qa",
        text=("question", "context"),
        label="answers",
        metric="f1",
        rows={"train": 91_235, "validation": 12_836, "test": 12_836},
        parts={
            "train": _mrqa("NaturalQuestionsShort", "train"),
            "test": _mrqa("NaturalQuestionsShort", "validation"),
        },
        cut={"validation": 12_836},
        output_rows=200,
        note="The short answers as in MRQA 2019: validation is cut off its train; test is its dev.",
    ),
    # Lewis et al. 2020.
    # {"question": "Wer gewann?", "context": "Rot gewann.", "answers": {"text": ["Rot"],
    #  "answer_start": [0]}, "id": "a1"}
    "mlqa": Entry(
        task="qa",
        text=("question", "context"),
        label="answers",
        metric="f1",
        rows={"train": 76_081, "validation": 7_715, "test": 75_712},
        parts={
            "train": _mrqa("SQuAD", "train"),
            "validation": _mlqa("validation"),
            "test": _mlqa("test"),
        },
        limit={"train": 76_081},
        output_rows=190,
        note="Train is as many rows of MRQA's SQuAD as squad trains on; validation and test are "
        "MLQA's, with question and context in the same language, of all seven languages. The "
        "published counts include pairs of two languages; which of them is not stated.",
    ),
    # Clark et al. 2020, the gold passages.
    # {"id": "finnish-1-0", "title": "Rooma", "question": "Missä se on?", "context": "Italiassa.",
    #  "answers": {"text": ["Italiassa"], "answer_start": [0]}}
    "tydiqa": Entry(
        task="qa",
        text=("question", "context"),
        label="answers",
        metric="f1",
        rows={"train": 44_896, "validation": 4_985, "test": 5_077},
        parts={"train": _tydiqa("train"), "test": _tydiqa("validation")},
        cut={"validation": 4_985},
        output_rows=250,
        note="The gold passages of the nine languages: validation is cut off train; test is the "
        "official validation. Offsets that miss their answer are corrected.",
    ),
    # Tjong Kim Sang 2002; Tjong Kim Sang & De Meulder 2003.
    # {"id": "0", "tokens": ["Anna", "sings", "."], "ner_tags": [1, 0, 0]}
    "conll": Entry(
        task="ner",
        text=("tokens",),
        label="ner_tags",
        labels=("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"),
        metric="f1",
        rows={"train": 39_115, "validation": 8_275, "test": 10_395},
        parts={split: _conll(split) for split in ("train", "validation", "test")},
        output_rows=18,
        note="CoNLL-2003's English with CoNLL-2002's Spanish and Dutch. The published counts "
        "include the lines between documents; these do not.",
    ),
    # Hovy et al. 2006.
    # {"tokens": ["Anna", "came", "today"], "tags": [4, 0, 2]}
    "ontonotes": Entry(
        task="ner",
        text=("tokens",),
        label="tags",
        labels=(
            *("O", "B-CARDINAL", "B-DATE", "I-DATE", "B-PERSON", "I-PERSON", "B-NORP", "B-GPE"),
            *("I-GPE", "B-LAW", "I-LAW", "B-ORG", "I-ORG", "B-PERCENT", "I-PERCENT", "B-ORDINAL"),
            *("B-MONEY", "I-MONEY", "B-WORK_OF_ART", "I-WORK_OF_ART", "B-FAC", "B-TIME"),
            *("I-CARDINAL", "B-LOC", "B-QUANTITY", "I-QUANTITY", "I-NORP", "I-LOC", "B-PRODUCT"),
            *("I-TIME", "B-EVENT", "I-EVENT", "I-FAC", "B-LANGUAGE", "I-PRODUCT", "I-ORDINAL"),
            "I-LANGUAGE",
        ),
        metric="f1",
        rows={"train": 82_728, "validation": 10_510, "test": 10_396},
        parts={
            split: (_export("tner/ontonotes5", "ontonotes5", split),)
            for split in ("train", "validation", "test")
        },
        output_rows=18,
        note="OntoNotes 5 as in T-NER, English: 59,924 / 8,528 / 8,262 rows. How the published "
        "splits were made is not stated; bring them as files to compare numbers.",
    ),
    # Florian et al. 2010; not public, and not the Korean KLUE.
    # {"tokens": ["Anna", "sings"], "ner_tags": ["B-PERSON", "O"]}
    "klue3": Entry(
        task="ner",
        text=("tokens",),
        label="ner_tags",
        metric="f1",
        rows={"train": 12_467, "validation": 8_785, "test": 10_816},
        parts={},
        output_rows=20,
        label_count=103,
        note='Each line {"tokens": ["Anna", "sings"], "ner_tags": ["B-PERSON", "O"]}, with tags '
        "in IOB2; the labels are those that occur.",
    ),
    # Bojar et al. 2016.
    # {"translation": {"de": "Es regnet.", "en": "It is raining."}}
    "wmt16_de_en": Entry(
        task="translation",
        text=("translation.de",),
        label="translation.en",
        metric="bleu",
        rows={"train": 4_490_021, "validation": 2_168, "test": 2_998},
        parts={split: _wmt16("de-en", split) for split in ("train", "validation", "test")},
        output_rows=27,
        languages=("de_DE", "en_XX"),
        limit={"train": 500_000},
        note="Validation is newstest2015, test newstest2016; 500,000 pairs of train are drawn. The "
        "published counts leave out pairs of more than 128 tokens.",
    ),
    # Bojar et al. 2016.
    # {"translation": {"ro": "Plouă.", "en": "It is raining."}}
    "wmt16_ro_en": Entry(
        task="translation",
        text=("translation.ro",),
        label="translation.en",
        metric="bleu",
        rows={"train": 596_163, "validation": 1_998, "test": 1_996},
        parts={split: _wmt16("ro-en", split) for split in ("train", "validation", "test")},
        output_rows=28,
        languages=("ro_RO", "en_XX"),
        limit={"train": 100_000},
        note="Validation is newsdev2016, test newstest2016; 100,000 pairs of train are drawn. The "
        "published counts leave out pairs of more than 128 tokens.",
    ),
    # Cobbe et al. 2021.
    # {"question": "Ann has 2 eggs …", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}
    "gsm8k": Entry(
        task="lm",
        text=("question",),
        prompt="Question: {question}\nAnswer:",
        label="answer",
        metric="exact_match",
        rows={"train": 6_973, "validation": 500, "test": 1_319},
        parts={"train": _gsm8k("train"), "test": _gsm8k("test")},
        cut={"validation": 500},
        output_rows=128,
        note="Validation is cut off train; test is the official one.",
    ),
    # Clark et al. 2018.
    # {"id": "a", "question": "Why?", "choices": {"text": ["so", "not"], "label": ["A", "B"]},
    #  "answerKey": "A"}
    **{
        f"arc_{name.lower()}": Entry(
            task="lm",
            text=("question",),
            prompt="Question: {question}\nAnswer:",
            label="answerKey",
            choices="choices",
            metric="multiple_choice",
            rows=dict(zip(("train", "validation", "test"), rows, strict=True)),
            parts={split: _arc(f"ARC-{name}", split) for split in ("train", "validation", "test")},
            output_rows=tokens,
            note="The official splits.",
        )
        for name, rows, tokens in (
            ("Challenge", (1_119, 299, 1_172), 7),
            ("Easy", (2_251, 570, 2_376), 5.5),
        )
    },
    # Mihaylov et al. 2018, without its book of facts.
    # {"id": "a", "question_stem": "The sun is", "choices": {"text": ["hot", "cold"],
    #  "label": ["A", "B"]}, "answerKey": "A"}
    "openbookqa": Entry(
        task="lm",
        text=("question_stem",),
        prompt="Question: {question_stem}\nAnswer:",
        label="answerKey",
        choices="choices",
        metric="multiple_choice",
        rows={"train": 4_957, "validation": 500, "test": 500},
        parts={split: _openbookqa(split) for split in ("train", "validation", "test")},
        output_rows=4.7,
        note="The official splits, without the facts.",
    ),
    # Ling et al. 2017.
    # {"question": "How many?", "options": ["A)1", "B)2"], "rationale": "…", "correct": "B"}
    "aqua_rat": Entry(
        task="lm",
        text=("question",),
        prompt="Question: {question}\nAnswer:",
        label="correct",
        choices="options",
        metric="multiple_choice",
        rows={"train": 97_467, "validation": 254, "test": 254},
        parts={split: _aqua(split) for split in ("train", "validation", "test")},
        output_rows=5.3,
        note="The official splits; its rationales are not used.",
    ),
    # Liu et al. 2020.
    # {"context": "All birds sing.", "query": "So?", "options": ["…", "…"], "correct_option": 0}
    "logiqa": Entry(
        task="lm",
        text=("context", "query"),
        prompt="{context}\nQuestion: {query}\nAnswer:",
        label="correct_option",
        choices="options",
        metric="multiple_choice",
        rows={"train": 7_376, "validation": 651, "test": 651},
        parts={
            split: (_export("lucasmccabe/logiqa", "default", split),)
            for split in ("train", "validation", "test")
        },
        output_rows=20,
        note="The official splits.",
    ),
    # Clark et al. 2019.
    # {"question": "is it so", "answer": true, "passage": "It is."}
    "boolq": Entry(
        task="lm",
        text=("passage", "question"),
        prompt="{passage}\nQuestion: {question}?\nAnswer:",
        label="answer",
        choices=("no", "yes"),
        metric="multiple_choice",
        rows={"train": 8_427, "validation": 1_000, "test": 3_270},
        parts={"train": _boolq("train"), "test": _boolq("validation")},
        cut={"validation": 1_000},
        output_rows=2,
        note="Validation is cut off train; test is the official validation.",
    ),
    **IMAGES,
}
