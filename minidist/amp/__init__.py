"""Mixed precision: 16-bit numbers, autocast and loss scaling."""

from .autocast import autocast as autocast
from .autocast import is_autocast_enabled as is_autocast_enabled
from .grad_scaler import GradScaler as GradScaler
