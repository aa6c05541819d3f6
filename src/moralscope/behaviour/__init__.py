"""What does it do? Policy tables and the label, layout, order or move control."""

from moralscope.behaviour.learned import learned_table
from moralscope.behaviour.policies import cooperation_table, policy_table
from moralscope.behaviour.transfer import TrainedOn, swap_labels, trained_on, transfer_table

__all__ = [
    "TrainedOn",
    "cooperation_table",
    "learned_table",
    "policy_table",
    "swap_labels",
    "trained_on",
    "transfer_table",
]
