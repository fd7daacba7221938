"""The tape: operations are recorded as nodes, and backward walks them in reverse.

Read tape.py first. Nothing here knows the operations; tensors are known by their `node`, `grad`
and `data` alone.
"""

from ..absent import explain as _explain
from .backward import backward as backward
from .backward import grad as grad
from .modes import detect_anomaly as detect_anomaly
from .modes import enable_grad as enable_grad
from .modes import inference_mode as inference_mode
from .modes import is_grad_enabled as is_grad_enabled
from .modes import no_grad as no_grad
from .modes import set_detect_anomaly as set_detect_anomaly
from .modes import set_grad_enabled as set_grad_enabled

_explain(__name__)  # names that PyTorch has and minidist not
