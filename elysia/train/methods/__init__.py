"""What can be learned: the models of each objective, which answer a micro-batch with its loss."""

from elysia.train.methods.preference import PreferenceFinetune
from elysia.train.methods.reward import RewardFinetune
from elysia.train.methods.sft import SupervisedFinetune

__all__ = ["PreferenceFinetune", "RewardFinetune", "SupervisedFinetune"]
