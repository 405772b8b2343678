"""Training: the model base, objectives over several outputs, the loop, and steps that are special."""

from typing import TYPE_CHECKING, Any

from mmkeras.training.balance import BALANCES, MultiTask, TaskWeights
from mmkeras.training.callbacks import Checkpoints, Patience, Stopped, telling_full_disk
from mmkeras.training.chunked import Chunked
from mmkeras.training.episodic import Episodic
from mmkeras.training.masked import Hidden, Masked
from mmkeras.training.modality_balance import MODALITY_BALANCES, ModalityBalance
from mmkeras.training.multi_input import MultiInput
from mmkeras.training.objective import Objective, ObjectiveModel
from mmkeras.training.terms import (
    Contrastive,
    Correlation,
    Discrepancy,
    Divergence,
    Pairwise,
    Reconstruction,
    Regression,
    Supervised,
)

__all__ = [
    "BALANCES",
    "MODALITY_BALANCES",
    "Adversarial",
    "AdversarialText",
    "Checkpoints",
    "Chunked",
    "Contrastive",
    "Correlation",
    "Discrepancy",
    "Divergence",
    "Episodic",
    "Hidden",
    "Masked",
    "ModalityBalance",
    "MultiInput",
    "MultiTask",
    "Objective",
    "ObjectiveModel",
    "Pairwise",
    "Patience",
    "Reconstruction",
    "Regression",
    "Stopped",
    "Supervised",
    "TaskWeights",
    "build_metrics",
    "fit",
    "is_chief",
    "make_optimizer",
    "make_strategy",
    "pieces",
    "precision",
    "set_seed",
    "telling_full_disk",
]

_LATE = {
    "Adversarial": "steps",
    "AdversarialText": "adversarial_text",
    "build_metrics": "loop",
    "fit": "loop",
    "is_chief": "strategy",
    "make_optimizer": "optimizer",
    "make_strategy": "strategy",
    "pieces": "strategy",
    "precision": "loop",
    "set_seed": "loop",
}

if TYPE_CHECKING:  # what `__getattr__` gives, for type checkers
    from mmkeras.training.adversarial_text import AdversarialText
    from mmkeras.training.loop import build_metrics, fit, precision, set_seed
    from mmkeras.training.optimizer import make_optimizer
    from mmkeras.training.steps import Adversarial
    from mmkeras.training.strategy import is_chief, make_strategy, pieces


def __getattr__(name: str) -> Any:
    """What needs TensorFlow, imported when used: the model base and the objectives run on every backend."""
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(f"mmkeras.training.{_LATE[name]}"), name)
    raise AttributeError(f"module 'mmkeras.training' has no attribute {name!r}. It has: {', '.join(__all__)}.")
