"""What does it do? Policy tables and the label, layout, order or move control."""

from moralscope.behaviour.learning.learned import learned_table
from moralscope.behaviour.learning.transfer import (
    TrainedOn,
    swap_labels,
    trained_on,
    transfer_table,
)
from moralscope.behaviour.policies import cooperation_table, policy_table

__all__ = [
    "TrainedOn",
    "cooperation_table",
    "learned_table",
    "policy_table",
    "swap_labels",
    "trained_on",
    "transfer_table",
]
