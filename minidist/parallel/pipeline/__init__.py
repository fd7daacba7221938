"""Pipeline parallelism: a schedule is data, one list of actions for each rank.

Read actions.py first, then needs.py (what an action needs), then one of schedules/. The same list
is checked (check/), simulated and drawn (study/) and executed (run/). cut.py makes the stages.
"""

from . import schedules, text
from .actions import Action, Overlap, Schedule
from .check.dry_run import ScheduleError
from .check.messages import with_messages, without_messages
from .check.validate import validate
from .run.runtime import Pipeline
from .study.costs import Costs
from .study.draw import draw
from .study.simulate import Simulated, simulate
from .study.timeline import gathered, timeline

__all__ = [
    "Action",
    "Costs",
    "Overlap",
    "Pipeline",
    "Schedule",
    "ScheduleError",
    "Simulated",
    "draw",
    "gathered",
    "schedules",
    "simulate",
    "text",
    "timeline",
    "validate",
    "with_messages",
    "without_messages",
]
