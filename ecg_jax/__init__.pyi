from typing import Any

from ecg_jax.data.recording import Recording as Recording
from ecg_jax.data.recording import from_array as from_array
from ecg_jax.data.recording import read as read
from ecg_jax.errors import UserError as UserError
from ecg_jax.inference.model import Model as Model
from ecg_jax.inference.model import load as load

__version__: str
Config = Any
