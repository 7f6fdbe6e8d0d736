"""Every field of the configs and which values it may have: one table, for all methods.

What depends on other fields, or on the records, is checked where it is known: in `run.config`, in a
method's `build`. A test holds that no field of a config in configs/ is missing here.
"""

import ast
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ecg_jax.errors import UserError
from ecg_jax.losses import contrastive
from ecg_jax.models import conv1d, siamese

MOST = 1_000_000  # of what is counted: beyond it nothing fits, or ends
UNITS = 65_536  # of a layer


class Rule(Protocol):
    """What a field may be."""

    def wrong(self, value: Any) -> str:
        """Why it cannot be `value`; empty if it can."""
        ...


class Number(NamedTuple):
    """A finite number in [low, high], without the ends if it is to be `above` and `below` them;
    `whole`: an integer."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    above: bool = False
    below: bool = False

    def wrong(self, value: Any) -> str:
        kinds = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, kinds):
            return f"must be a {'whole ' if self.whole else ''}number"
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if not (value > self.low if self.above else value >= self.low):
            return self._range or self._least
        if not (value < self.high if self.below else value <= self.high):
            return self._range or f"must be {'below' if self.below else 'at most'} {self.high:,}"
        return ""

    @property
    def _range(self) -> str:
        """Of a narrow range, in one."""
        if self.high > 1:
            return ""
        ends = "(" if self.above else "[", ")" if self.below else "]"
        return f"must be in {ends[0]}{self.low:g}, {self.high:g}{ends[1]}"

    @property
    def _least(self) -> str:
        if (self.low == 0 and self.above) or (self.low == 1 and self.whole):
            return "must be above zero"
        if self.low == 0:
            return "must not be negative"
        return f"must be {'above' if self.above else 'at least'} {self.low:g}"


class Choice(NamedTuple):
    """One of these."""

    values: tuple[Any, ...]

    def wrong(self, value: Any) -> str:
        same = any(value == one and type(value) is type(one) for one in self.values)
        return "" if same else f"choose one of {', '.join(map(str, self.values))}"


class Flag(NamedTuple):
    def wrong(self, value: Any) -> str:
        return "" if isinstance(value, bool) else "must be True or False"


class Text(NamedTuple):
    def wrong(self, value: Any) -> str:
        return "" if isinstance(value, str) else "must be a text"


class Listed(NamedTuple):
    """A list, of what `item` allows; `said`: how one is written."""

    item: Rule
    said: str
    empty: bool = True

    def wrong(self, value: Any) -> str:
        if not isinstance(value, list | tuple) or not (value or self.empty):
            return self.said
        for one in value:
            if why := self.item.wrong(one):
                return f"{one!r} {why}: {self.said}"
        return ""


class Step(NamedTuple):
    """An augmentation: {"name": NAME, OPTION: VALUE}; `data.augment` knows them."""

    def wrong(self, value: Any) -> str:
        named = isinstance(value, Mapping) and isinstance(value.get("name"), str)
        return "" if named else "is no augmentation with a name"


SWITCH, TEXT = Flag(), Text()
COUNT = Number(1, MOST, whole=True)
COUNT_OR_NONE = Number(0, MOST, whole=True)
LAYER = Number(1, UNITS, whole=True)
ABOVE_ZERO = Number(0, above=True)
NOT_NEGATIVE = Number(0)
DECAY = Number(0, 1, below=True)
RATE = Number(0, 100, above=True)  # of learning
NAMES = Listed(TEXT, "write names with commas between them, such as super,sub")
SHARES = Listed(Number(0, 1, above=True), "shares are above 0 and at most 1, such as 0.01,0.1,1")
CHAIN = Listed(Step(), "write ({'name': 'scale'}, {'name': 'jitter', 'sd': 0.05})")
LEADS = Listed(TEXT, "write leads with commas between them, such as I,II,V1", empty=False)

LABELLED = {
    "head": Choice(("prevalence", "probe")),
    "learning_rates": Listed(RATE, "name one or more, above zero, such as 1e-4,3e-4", empty=False),
    "head_rate": ABOVE_ZERO,
    "weight_decay": NOT_NEGATIVE,
    "clip": NOT_NEGATIVE,
    "batch_size": COUNT,
    "epochs": COUNT,
    "min_updates": COUNT,
    "max_updates": COUNT,
    "augment": CHAIN,
}

DELINEATE = {
    "batch_size": COUNT,
    "encoder_rate": NOT_NEGATIVE,
    "learning_rate": RATE,
    "looks": COUNT,
    "updates": COUNT,
    "weight_decay": NOT_NEGATIVE,
    "width": LAYER,
}

# Every config has these.
COMMON: dict[str, Rule] = {
    "seed": Number(0, 2**31 - 1, whole=True),  # JAX takes seeds modulo 2^32
    "init": TEXT,
    "extend": TEXT,
    "method": TEXT,
    "dataset": TEXT,
    "data_dir": TEXT,
    "build": SWITCH,
    "rate": Choice((100, 500)),
    "seconds": Number(1, 3600),
    "normalize": Choice(("millivolt", "record", "lead")),
    "stream": SWITCH,
    "epochs": COUNT,
    "batch_size": COUNT,
    "shards": COUNT,
    "steps_per_dispatch": COUNT_OR_NONE,
    "average": DECAY,
    "accumulate": COUNT,
    "log_every": COUNT,
    "eval_every": COUNT,
    "checkpoint_seconds": NOT_NEGATIVE,
    "augment": CHAIN,
    "augment_second": CHAIN,
    "model.encoder": Choice(siamese.ENCODERS),
    "model.size": TEXT,
    "model.depth": Choice((18, 34, 50)),
    "model.width": Number(1, 4096, whole=True),
    "model.dtype": Choice(("auto", "float32", "bfloat16")),
    "model.convolution": Choice(conv1d.FORMS),
    "model.remat": SWITCH,
    "parallel.loss": Choice(contrastive.FORMS),
    "parallel.batch_norm": Choice(("global", "device")),
    "parallel.shard_optimizer": SWITCH,
    "optimizer.name": Choice(("adam", "adamw")),
    "optimizer.learning_rate": RATE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.b1": DECAY,
    "optimizer.b2": DECAY,
    "optimizer.clip": NOT_NEGATIVE,
    "optimizer.schedule": Choice(("constant", "cosine")),
    "optimizer.warmup_epochs": NOT_NEGATIVE,
    "evaluate.tasks": NAMES,
    "evaluate.select": TEXT,
    "evaluate.protocols": NAMES,
    "evaluate.bank": TEXT,
    "evaluate.null_draws": COUNT_OR_NONE,
    "evaluate.rules": NAMES,
    "evaluate.paper": Choice(("etp", "mets")),
    "evaluate.finetune_rules": NAMES,
    "evaluate.pooling": Choice(("mean", "all")),
    "evaluate.l2_normalize": SWITCH,
    "evaluate.fractions": SHARES,
    "evaluate.finetune_fractions": SHARES,
    "evaluate.finetune_leads": Listed(
        Number(1, 12, whole=True), "write how many leads, such as 12,6,1"
    ),
    "evaluate.conditions": NAMES,
    "evaluate.controls": NAMES,
    "evaluate.retrieval": SWITCH,
    "evaluate.prompts": TEXT,
    "evaluate.knn_every": COUNT_OR_NONE,
    "evaluate.neighbours": COUNT,
    "evaluate.draws": COUNT,
    "evaluate.batch_size": COUNT,
    **{f"evaluate.delineate.{name}": rule for name, rule in DELINEATE.items()},
    **{f"evaluate.finetune.{name}": rule for name, rule in LABELLED.items()},
    **{f"evaluate.supervised.{name}": rule for name, rule in LABELLED.items()},
}

# Some have these: methods that read reports, and each method's own.
OWN: dict[str, Rule] = {
    "text.tower": TEXT,
    "text.language": Choice(("english", "original", "both")),
    "text.sentences": Number(0, 1),
    "text.template": TEXT,
    "text.cased": Choice(("auto", "true", "false", True, False)),
    "text.pooling": Choice(("auto", "mean", "cls")),
    "text.empty": Choice(("drop", "error")),
    "text.shuffle": SWITCH,
    "model.dim": LAYER,
    "model.hidden": Number(0, UNITS, whole=True),
    "model.temperature": ABOVE_ZERO,
    "model.learn_temperature": SWITCH,
    "model.same_report": SWITCH,
    "model.spare_patient": SWITCH,
    "model.soft_targets": NOT_NEGATIVE,
    "model.loss": Choice(("info_nce", "sigmoid")),
    "model.bias": Number(),
    "model.invariance": NOT_NEGATIVE,
    "model.adversarial": NOT_NEGATIVE,
    "model.ahead": Number(0, 1, above=True, below=True),
    "model.bank_momentum": DECAY,
    "model.bottleneck": LAYER,
    "model.context": COUNT,
    "model.contextual": NOT_NEGATIVE,
    "model.epsilon": ABOVE_ZERO,
    "model.freeze": COUNT_OR_NONE,
    "model.graph": Choice(("full", "core")),
    "model.groups": Listed(LEADS, "write (('I', 'II', 'III'), ('V1', 'V2'))"),
    "model.heads": COUNT,
    "model.jigsaw_weight": Number(0, 1),
    "model.kind": TEXT,
    "model.layers": Number(1, 1000, whole=True),
    "model.leads": LEADS,
    "model.leads_per_step": COUNT,
    "model.mlp": LAYER,
    "model.momentum": DECAY,
    "model.negatives": COUNT,
    "model.pieces": Number(2, MOST, whole=True),
    "model.prototypes": LAYER,
    "model.queue": COUNT_OR_NONE,
    "model.queue_from": DECAY,
    "model.segments": Number(2, MOST, whole=True),
    "model.steps": COUNT,
    "model.stretch": ABOVE_ZERO,
    "model.temporal": NOT_NEGATIVE,
    "model.times": COUNT,
    "model.version": Choice((2, 3)),
    "model.against": TEXT,
    "model.beat": TEXT,
    "model.beat_weight": NOT_NEGATIVE,
    "model.beats": COUNT,
    "model.degrees": Number(0, 180),
    "model.erased": Number(0, 1),
    "model.exponent": ABOVE_ZERO,
    "model.form": TEXT,
    "model.positives": NOT_NEGATIVE,
    "model.rhythm": TEXT,
    "model.scale": ABOVE_ZERO,
    "model.attention_dropout": DECAY,
    "model.contrast": TEXT,
    "model.conv_gradient": NOT_NEGATIVE,
    "model.diversity": NOT_NEGATIVE,
    "model.dropout": DECAY,
    "model.extractor": TEXT,
    "model.group": COUNT_OR_NONE,
    "model.masked": Number(0, 1),
    "model.penalty": NOT_NEGATIVE,
    "model.strides": Listed(
        Number(1, 1000, whole=True), "write strides, such as 2,2,2,2", empty=False
    ),
    "model.token": COUNT_OR_NONE,
}
FIELDS = COMMON | OWN


def check(values: Mapping[str, Any]) -> None:
    """Raises a UserError for a field that is missing, or whose value no run can have.

    Args:
      values: dotted names -> values. A name that is not in the table is of a method that is not of
        this library, which checks it; no number may be infinite or none.
    """
    for name, value in values.items():
        rule = FIELDS.get(name, Number() if isinstance(value, float) else None)
        if rule is not None and (why := rule.wrong(value)):
            raise UserError(f"--config.{name}={shown(value)}: {why}")
    if missing := [name for name in COMMON if name not in values]:
        raise UserError(
            f"the config has no field {', '.join(missing[:5])}{', ...' * (len(missing) > 5)}: "
            "begin it with configs/common.py, as those in configs/ do"
        )


def shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def separated(name: str, value: Any) -> Any:
    """A list as it was written on a command line, `a,b` or `0.1,1`, item by item; anything else as
    it is."""
    rule = FIELDS.get(name)
    if not isinstance(rule, Listed) or not isinstance(value, list | tuple):
        return value
    items = [part for item in value for part in (_parts(item) if isinstance(item, str) else [item])]
    if isinstance(rule.item, Number):
        items = [_number(item) for item in items]
    return tuple(items)


def as_written(argument: str) -> str:
    """A flag `--config.FIELD=6 leads,all` so that its list is one text, which `separated` divides;
    any other argument as it is."""
    flag, _, value = argument.partition("=")
    rule = FIELDS.get(flag.lstrip("-").removeprefix("config."))
    if not flag.startswith("-") or not isinstance(rule, Listed) or isinstance(rule.item, Step):
        return argument
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return f"{flag}={(value,)!r}" if value else argument
    return argument


def _parts(item: str) -> list[str]:
    return [part.strip() for part in item.split(",") if part.strip()]


def _number(item: Any) -> Any:
    try:
        return float(item) if isinstance(item, str) else item
    except ValueError:
        return item
