"""Several tasks trained at once, and how their losses are weighed against each other."""

import math
from typing import Any, Literal

import keras
from keras import ops

from mmkeras.layers import replicas
from mmkeras.training.objective import Objective, ObjectiveModel

BALANCES = ("fixed", "uncertainty", "gradnorm", "pcgrad")


@keras.saving.register_keras_serializable(package="mmkeras")
class TaskWeights(keras.layers.Layer):
    """Anything `(batch, ...)` to `(batch, tasks)`, a number a task, one row as the other: what a balance has learned.

    Args:
        num_tasks: number of tasks.
        initial: the number to begin with.
        trainable: whether the optimiser learns them (uncertainty) or the training step itself sets them (gradnorm).
    """

    def __init__(self, num_tasks: int, initial: float = 0.0, trainable: bool = True, **kwargs: Any) -> None:
        super().__init__(trainable=trainable, **kwargs)
        self.num_tasks = num_tasks
        self.initial = initial

    def build(self, input_shape):
        initial = keras.initializers.Constant(self.initial)
        self.values = self.add_weight(name="values", shape=(self.num_tasks,), initializer=initial)
        self.first_losses = self.add_weight(
            name="first_losses", shape=(self.num_tasks,), initializer="zeros", trainable=False
        )

    def call(self, x):
        return ops.broadcast_to(ops.convert_to_tensor(self.values)[None], (ops.shape(x)[0], self.num_tasks))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_tasks)

    def get_config(self):
        return {**super().get_config(), "num_tasks": self.num_tasks, "initial": self.initial}


@keras.saving.register_keras_serializable(package="mmkeras")
class MultiTask(ObjectiveModel):
    """An ObjectiveModel each of whose terms is a task.

    Args:
        inputs, outputs, name, objective: see ObjectiveModel. With `uncertainty` and `gradnorm` the outputs have
            `task_weights`, from a TaskWeights layer of that name.
        balance: `"fixed"`, the terms' own weights; `"uncertainty"`, `exp(-s) loss + s / 2` with a learned `s` a task
            (Kendall 2018); `"gradnorm"`, weights that keep the tasks' gradients on the shared layer at like norms,
            larger for tasks that learn slowly (Chen 2018); `"pcgrad"`, gradients that lose what points against those of
            another task (Yu 2020). The last two need TensorFlow.
        shared: name of the last layer that all tasks share, for gradnorm.
        rate, asymmetry: of gradnorm.
        seed: of the order in which pcgrad takes the other tasks.
    """

    def __init__(
        self,
        inputs: dict[str, keras.KerasTensor],
        outputs: dict[str, keras.KerasTensor],
        name: str | None = None,
        *,
        objective: Objective | dict[str, Any] | None = None,
        balance: Literal["fixed", "uncertainty", "gradnorm", "pcgrad"] = "fixed",
        shared: str = "trunk",
        rate: float = 0.025,
        asymmetry: float = 1.5,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, objective=objective, **kwargs)
        self.balance = balance
        self.shared = shared
        self.rate = rate
        self.asymmetry = asymmetry
        self.seed = seed
        self.draws = keras.random.SeedGenerator(seed)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self.balance != "uncertainty":
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        x = self.matched(x)
        losses, parts = self._task_losses(x, y, y_pred)
        spread = y_pred["task_weights"][0]
        share = replicas.share(ops.shape(y_pred["task_weights"])[0])
        asked = ops.cast(replicas.total(ops.stop_gradient(losses)) != 0, spread.dtype)  # 0 is a task without rows
        loss = ops.sum(ops.exp(-spread) * losses) + share * ops.sum(asked * spread) / 2
        return self.told(x, loss, parts) + sum(self.losses) / replicas.count()

    def _task_losses(self, x, y, y_pred):
        """The terms' values times their weights, `(tasks,)`; and the values, `{name: value}`."""
        _, parts = self.objective(x, y, y_pred)
        return ops.stack([term.weight * parts[term.name] for term in self.objective.terms]), parts

    def train_step(self, *args):
        if self.balance in ("fixed", "uncertainty"):
            return super().train_step(*args)
        import tensorflow as tf

        x, y, _ = keras.utils.unpack_x_y_sample_weight(*args)
        variables = self.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            outputs = self(x, training=True)
            losses, parts = self._task_losses(self.matched(x), y, outputs)
            each = tf.unstack(self.optimizer.scale_loss(losses), len(self.objective.terms))
            total = tf.reduce_sum(losses * self._task_weights(losses)) + sum(self.losses) / replicas.count()
            scaled = self.optimizer.scale_loss(total)
        self.told(x, total, parts)
        if self.balance == "gradnorm":
            kernel = self.get_layer(self.shared).kernel
            slopes = replicas.total([tape.gradient(loss, kernel) for loss in each])
            gradients = tape.gradient(scaled, variables)
            self._follow_norms(replicas.total(losses), tf.stack([tf.norm(slope) for slope in slopes]))
        else:
            gradients = self._without_conflicts([tape.gradient(loss, variables) for loss in each], variables)
        del tape
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._loss_tracker.update_state(total * replicas.count())
        return self.get_metrics_result()

    def _task_weights(self, losses):
        if self.balance == "gradnorm":
            return ops.stop_gradient(ops.convert_to_tensor(self.get_layer("task_weights").values))
        return ops.ones_like(losses)

    def _follow_norms(self, losses, norms):
        """One step of the weights towards gradients of like norms (Chen 2018, algorithm 1)."""
        layer = self.get_layer("task_weights")
        weights, first = ops.convert_to_tensor(layer.values), ops.convert_to_tensor(layer.first_losses)
        first = ops.where(first > 0, first, losses)
        layer.first_losses.assign(first)
        pace = losses / ops.maximum(first, 1e-8)
        wanted = ops.mean(weights * norms) * (pace / ops.maximum(ops.mean(pace), 1e-8)) ** self.asymmetry
        slope = ops.sign(weights * norms - wanted) * norms / ops.maximum(ops.mean(norms), 1e-8)
        moved = ops.maximum(weights - self.rate * slope, 0.01)
        moved = moved * len(self.objective.terms) / ops.sum(moved)
        # The optimiser leaves a step out whose scaled gradients overflow, and so is this.
        layer.values.assign(ops.where(ops.all(ops.isfinite(norms)), moved, weights))

    def _without_conflicts(self, gradients, variables):
        """The sum of the tasks' gradients, each without its part against another's, the others in random order."""
        sizes = [math.prod(v.shape) for v in variables]
        flat = [
            ops.concatenate([
                ops.zeros((size,)) if g is None else ops.reshape(ops.convert_to_tensor(g), (-1,))
                for g, size in zip(own, sizes, strict=True)
            ])
            for own in gradients
        ]  # fmt: skip
        whole = replicas.total(ops.stack(flat))
        total = project_conflicts(whole, keras.random.uniform((len(flat), len(flat)), seed=self.draws))
        parts = ops.split(total / replicas.count(), [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)])
        return [ops.reshape(part, v.shape) for part, v in zip(parts, variables, strict=True)]

    def get_config(self):
        own = {
            "balance": self.balance, "shared": self.shared, "rate": self.rate, "asymmetry": self.asymmetry,
            "seed": self.seed,
        }  # fmt: skip
        return {**super().get_config(), **own}


def project_conflicts(gradients, draws):
    """Gradients `(tasks, size)` to the sum `(size,)` of what is left of each (PCGrad, Yu 2020).

    Each gradient in turn is compared with the original ones of the other tasks: where their product is negative, its
    projection onto the other is taken away.

    Args:
        gradients: `(tasks, size)`.
        draws: numbers `(tasks, tasks)`; their order in a row is that in which the others are taken.

    Example:

    >>> project_conflicts(np.array([[1.0, 0.0], [-1.0, 1.0]]), np.zeros((2, 2))).numpy().tolist()
    [0.5, 1.5]
    """
    gradients = ops.convert_to_tensor(gradients)
    squares = ops.maximum(ops.sum(ops.square(gradients), axis=-1), 1e-12)
    order = ops.argsort(draws, axis=-1)
    total = 0.0
    for i in range(gradients.shape[0]):
        own = gradients[i]
        for place in range(gradients.shape[0]):
            j = order[i, place]
            other = ops.take(gradients, j, axis=0)
            product = ops.minimum(ops.sum(own * other), 0.0)  # with itself never negative: nothing is taken
            own = own - product / ops.take(squares, j) * other
        total = total + own
    return total
