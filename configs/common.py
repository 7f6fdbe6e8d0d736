"""What the configs share: the argument string after the colon, and a run's fields."""

from ml_collections import ConfigDict

# name -> type of its value; a name alone sets True
ARGUMENTS = {
    "demo": bool,
    "paper": bool,
    "modern": bool,
    "mimic": bool,
    "code": bool,
    "rate": int,
    "text": str,
    "seed": int,
}


def parse_arg(arg: str | None) -> ConfigDict:
    """`demo,rate=100,text=minilm,seed=1` -> the arguments, None where not given.

    Raises:
      ValueError: an unknown argument or a value that does not fit.
    """
    given = ConfigDict(dict.fromkeys(ARGUMENTS), type_safe=False)
    for item in filter(None, (arg or "").split(",")):
        name, _, value = item.partition("=")
        kind = ARGUMENTS.get(name)
        if kind is None:
            raise ValueError(f"unknown config argument {name!r}: there are {', '.join(ARGUMENTS)}")
        if (kind is bool) == bool(value):
            raise ValueError(f"config argument {name!r}: write {name}{'' if value else '=VALUE'}")
        try:
            given[name] = True if kind is bool else kind(value)
        except ValueError:
            raise ValueError(f"config argument {name}={value}: not a whole number") from None
    if given.rate not in (None, 100, 500):
        raise ValueError(f"config argument rate={given.rate}: prepared rates are 100 and 500 Hz")
    if given.paper and given.modern:
        raise ValueError("config arguments paper and modern: choose one")
    if given.mimic and (other := [name for name in ("paper", "demo") if given[name]]):
        raise ValueError(f"config arguments mimic and {other[0]}: choose one")
    return given


def base(given: ConfigDict) -> ConfigDict:
    """The fields that every run has, before its config changes them."""
    c = ConfigDict()
    c.seed = given.seed or 0
    c.init = ""  # an export's or a run's folder, whose encoder the training starts from
    c.extend = ""  # a run's folder, whose training goes on to more epochs
    c.method = ""
    c.dataset = "ptb_xl"
    c.data_dir = "data"
    c.build = False  # prepare the dataset when it is missing (simulated data only)
    c.rate = given.rate or (100 if given.demo or given.mimic else 500)  # Hz
    c.seconds = 10.0
    c.normalize = "millivolt"  # or record, lead: see ecg_jax/data/normalize.py
    c.stream = False  # read the training split from disk in every step; the batches are the same

    c.epochs = 50
    c.batch_size = 128
    # Virtual shards; every device count that divides them draws the same batches. 32 become as many
    # as there are devices where they do not divide.
    c.shards = 32
    c.steps_per_dispatch = 0  # 0: one on a CPU, up to 32 on an accelerator
    c.average = 0.0  # decay of the running mean of the weights that is evaluated; 0: the last ones
    c.accumulate = 1  # chunks of a batch that are encoded one by one, to save memory
    c.log_every = 1  # steps
    c.eval_every = 1  # epochs
    c.checkpoint_seconds = 30.0  # at most so much work is lost; an epoch is the smallest unit

    c.model = ConfigDict()
    c.model.encoder = "resnet1d"  # or wav2vec2, s4
    c.model.size = "small"  # of those two: small, base; of wav2vec2 also large
    c.model.depth = 18  # of resnet1d
    c.model.width = 64
    c.model.dtype = "float32"  # or bfloat16, or auto: bfloat16 where there is an accelerator
    c.model.convolution = "auto"  # or plain, winograd: the same figures
    c.model.remat = False  # compute activations again in the backward pass, to save memory
    c.model.dim = 512
    c.model.hidden = 0

    c.augment = ()
    c.augment_second = ()  # of a second view, if not as the first one's

    c.parallel = ConfigDict()
    c.parallel.loss = "plain"  # or gathered, ring: the same figures in other memory
    c.parallel.batch_norm = "global"  # or device: statistics of each device's own records
    c.parallel.shard_optimizer = False  # its state in parts over the devices, not in copies

    c.optimizer = ConfigDict()
    c.optimizer.name = "adam"
    c.optimizer.learning_rate = 1e-3
    c.optimizer.weight_decay = 0.0
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.999
    c.optimizer.clip = 0.0
    c.optimizer.schedule = "constant"
    c.optimizer.warmup_epochs = 0

    c.evaluate = ConfigDict()
    c.evaluate.tasks = ("super",)
    # Whose validation zero-shot macro AUROC names the checkpoint that is evaluated: a task, `mean`
    # over the tasks, or `last`, which takes the last one.
    c.evaluate.select = "super"
    # and own_report, attention_probe, knn, finetune, supervised
    c.evaluate.protocols = ("zero_shot", "zero_shot_reports", "linear_probe")
    c.evaluate.bank = ""  # whose training reports zero_shot_reports goes through, if not its own
    c.evaluate.null_draws = 50  # random heads that zero-shot's null is drawn by
    c.evaluate.rules = ("corrected", "paper")
    c.evaluate.paper = "etp"  # whose rule "paper" is: etp's or mets's
    c.evaluate.finetune_rules = ("corrected", "paper")  # of those, for networks trained on labels
    # What the linear probe is given: mean, deviation and maximum over time of the last three maps,
    # one a stage; or the mean of the last one alone, `mean`.
    c.evaluate.pooling = "all"
    c.evaluate.l2_normalize = True  # features of `mean`, but for the paper's rule
    c.evaluate.fractions = (1.0,)  # of the training labels that the linear probe learns from
    c.evaluate.finetune_fractions = (0.05,)  # of those that fine-tuning learns from
    c.evaluate.finetune_leads = (12,)  # and fewer: a network for each, all others zero throughout
    c.evaluate.conditions = ()  # harder test records, such as "6 leads"; "all" of them
    c.evaluate.controls = ("random",)  # and others: see ecg_jax/evaluation/controls.py
    c.evaluate.retrieval = True
    c.evaluate.prompts = ""  # a prompt file of one's own
    c.evaluate.knn_every = 5  # epochs: nearest neighbours on validation, with a text side; 0: never
    c.evaluate.neighbours = 2048  # training records, at most, that they are sought among
    c.evaluate.draws = 1000
    c.evaluate.batch_size = 128

    c.evaluate.finetune = labelled("probe", (3e-4,), min_updates=150)
    c.evaluate.supervised = labelled("prevalence", (1e-3,), min_updates=300)
    c.evaluate.delineate = delineate()
    return c


def against_reports(given: ConfigDict, method: str) -> ConfigDict:
    """A run that learns from reports, before its config changes it."""
    if given.code:
        raise ValueError(f"{method} has no config argument code")
    c = base(given)
    c.method = method
    c.text = ConfigDict()
    c.text.tower = given.text or "clinicalbert"
    c.text.language = "english"  # or original, or both: one of them, drawn in every step
    c.text.sentences = 0.0  # share of the texts that are one sentence of the report, drawn anew
    c.text.template = "{text}"
    c.text.cased = "auto"
    c.text.pooling = "auto"
    c.text.empty = "drop"
    c.text.shuffle = False  # a control: every record learns from the report of another one

    c.model.temperature = 0.07
    c.model.learn_temperature = False
    c.model.same_report = False
    c.model.spare_patient = False  # reports of a patient's other records are no negatives
    c.model.soft_targets = 0.0  # above 0: reports that the tower finds alike are positives, too
    c.model.loss = "info_nce"  # or sigmoid, whose paper learns tau from 0.1
    c.model.bias = -10.0  # of the sigmoid loss, where it starts
    c.model.invariance = 0.0  # weight of ETP's loss between two views of an ECG, equation 6
    return c


# A stretch of 5 s of a record in place of the whole: half the work, and on all of PTB-XL better
# (docs/results.md).
AUGMENT = (
    {"name": "crop"},
    {"name": "scale"},
    {"name": "jitter", "sd": 0.05},
    {"name": "wander"},
    {"name": "time_mask", "fraction": 0.3},
    {"name": "lead_mask", "probability": 0.2},
)
# For methods that divide a record themselves.
WHOLE = (AUGMENT[1], {"name": "shift", "fraction": 0.3}, *AUGMENT[2:])


def whole(c: ConfigDict) -> ConfigDict:
    """The config, learning from whole records where its chains begin with a crop: what figures of
    records of one length are of (benchmarks, budgets)."""
    for chain in ("augment", "augment_second"):
        if any(step["name"] == "crop" for step in c[chain]):
            c[chain] = WHOLE
    return c


def modern(c: ConfigDict) -> None:
    """The optimisation that this project recommends, alike for every method."""
    c.epochs = 20
    c.optimizer.name = "adamw"
    c.optimizer.weight_decay = 0.05
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_epochs = 1
    c.optimizer.clip = 1.0
    c.average = 0.98
    c.augment = AUGMENT
    c.evaluate.select = "last"
    c.model.dtype = "auto"


def mimic(c: ConfigDict) -> None:
    """Pre-training on the 784,000 records of MIMIC-IV-ECG's training split, after `modern`.

    What was published of it: TAMER, 50 epochs of batch 256; DERI, batch 512; MS-ECG-FM, 75,000
    steps of 512, which are 49 epochs, with AdamW. The learning rate is that of PTB-XL's recipe here
    and was not tried on this data set.
    """
    c.dataset = "mimic_iv_ecg"
    c.batch_size = 512
    c.epochs = 50
    c.eval_every = 5
    c.average = 0.999
    c.checkpoint_seconds = 600.0
    c.evaluate.tasks = ("super", "cpsc", "statements")
    # A probe on 784,000 records is no watch; what counts is measured on other datasets.
    c.evaluate.protocols = ("zero_shot",) if "text" in c else ("linear_probe",)
    c.evaluate.fractions = (1.0,) if "text" in c else (0.01,)


# The learning rate of the methods that have a predictor and no negatives. At the rate of the others
# (which were not tried at this one) few directions of their embeddings are left: after 5 epochs on
# PTB-XL, fold 9, effective ranks of 6.7 (BYOL), 4.9 (SimSiam) and 6.5 (ASTCL); 16, 29 and 17 here
# (BYOL's with a target at 0.99).
WITHOUT_NEGATIVES = 5e-4


def self_supervised(given: ConfigDict, method: str) -> ConfigDict:
    """A run without text: two views of a record, heads of 512 and 128 units; nearest
    neighbours on validation are watched."""
    if given.paper or given.text or given.code:
        raise ValueError(f"{method} has no config arguments paper, code and text")
    c = base(given)
    c.method = method
    modern(c)
    c.optimizer.learning_rate = 2e-3
    c.eval_every = 5
    c.evaluate.protocols = ("linear_probe",)
    c.evaluate.retrieval = False
    c.model.hidden = 512
    c.model.dim = 128
    c.model.temperature = 0.1
    if given.mimic:
        mimic(c)
    if given.demo:
        c.dataset = "simulated"
        c.build = True
        c.epochs = 5
        c.evaluate.tasks = ("findings", "super")
        c.evaluate.select = "findings"
        c.evaluate.draws = 200
    return c


def delineate() -> ConfigDict:
    """How waves are learned: see ecg_jax/evaluation/protocols/delineate.py."""
    c = ConfigDict()
    c.width = 32  # channels of the decoder
    c.updates = 1000
    c.looks = 10  # at validation; the best is kept
    c.batch_size = 16
    c.learning_rate = 1e-3
    c.encoder_rate = 1.0  # the learning rate of a free encoder, in the decoder's
    c.weight_decay = 0.05
    return c


def labelled(head: str, learning_rates: tuple[float, ...], min_updates: int) -> ConfigDict:
    """How encoder and head are trained on labels: see ecg_jax/evaluation/protocols/finetune.py."""
    c = ConfigDict()
    c.head = head  # where it starts: prevalence, or probe for an encoder that has learned
    c.learning_rates = learning_rates  # the best on validation is kept
    c.head_rate = 1.0  # the head's learning rate, in the encoder's
    c.weight_decay = 0.05
    c.clip = 1.0  # of the gradient's norm; 0: none
    c.batch_size = 32  # ETP section 3.2
    c.epochs = 15
    c.min_updates = min_updates  # fewer records than that takes are gone over more often
    c.max_updates = 10_000
    c.augment = AUGMENT  # whatever the method's own: recipes of augmentation are not compared here
    return c
