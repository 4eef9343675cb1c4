"""Plans: images, tokens, time, memory and disk of an experiment before anything runs, from measured rates.

Nothing here imports models or arrays except `learnt`, which makes the rates from finished runs.
"""

from conceptbench.planning.plan import Plan, Stage, all_jobs, make_plan, peak_memory
from conceptbench.planning.rates import Rates, load_rates
from conceptbench.planning.schedule import Machine
from conceptbench.planning.space import require_disk

__all__ = ["Machine", "Plan", "Rates", "Stage", "all_jobs", "load_rates", "make_plan", "peak_memory", "require_disk"]
