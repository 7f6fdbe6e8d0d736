"""Exported models on the Hugging Face hub."""

from pathlib import Path

from ecg_jax.errors import UserError
from ecg_jax.inference.exported import BANK, CARD, HEADS
from ecg_jax.run.exported import CONFIG, WEIGHTS

PREFIX = "hf:"


def download(name: str) -> Path:
    """The folder of the model OWNER/NAME or OWNER/NAME@REVISION, as a copy on this machine.

    Raises:
      UserError: the hub refuses, or cannot be reached, or its package is missing.
    """
    repository, _, revision = name.partition("@")
    try:
        from huggingface_hub import snapshot_download

        wanted = [WEIGHTS, CONFIG, CARD, BANK, HEADS]
        found = snapshot_download(repository, revision=revision or None, allow_patterns=wanted)
    except ModuleNotFoundError:
        raise UserError(
            f"{PREFIX}{name} needs huggingface_hub: pip install huggingface_hub"
        ) from None
    except Exception as error:  # the hub's, the proxy's or the network's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot download {repository} from the hub ({reason})") from None
    return Path(found)


def push(folder: Path, name: str) -> None:
    """Uploads an exported folder to the Hugging Face hub, as `hf auth login` has set it up.

    Raises:
      UserError: the hub refuses, or cannot be reached.
    """
    try:
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # the hub's, the proxy's or the network's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot upload {folder} to {name} ({reason})") from None
