"""Training by episodes: each a small task of its own, with examples to learn from and queries to be asked."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from keras import ops

from mmkeras import losses
from mmkeras.layers import replicas
from mmkeras.training.multi_input import MultiInput
from mmkeras.types import Tensor

METHODS = ("prototypical", "matching", "maml", "reptile")


@keras.saving.register_keras_serializable(package="mmkeras")
class Episodic(MultiInput):
    """A model that is trained by episodes, so that it learns a new task from a few examples.

    A batch is a whole number of episodes, its rows in their order: class by class, of each the examples, then the
    queries (`mmkeras.data.episodes`). `prototypical` and `matching` compare the output `embedding` of queries and
    examples. `maml` (Finn 2017) takes a few steps of gradient descent on the examples, from the output `label`, and
    learns weights from which these steps do well on the queries, through the steps; `reptile` (Nichol 2018) moves the
    weights towards where such steps lead.

    Args:
        inputs, outputs, name: see MultiInput.
        method: one of `METHODS`.
        ways, shots, queries: classes an episode, examples and queries a class.
        inner_steps, inner_rate: of gradient descent on the examples.
        first_order: whether maml takes the gradient as if the steps did not depend on the weights.
    """

    def __init__(
        self,
        inputs: dict[str, keras.KerasTensor],
        outputs: dict[str, keras.KerasTensor],
        name: str | None = None,
        *,
        method: Literal["prototypical", "matching", "maml", "reptile"] = "prototypical",
        ways: int = 5,
        shots: int = 1,
        queries: int = 5,
        inner_steps: int = 3,
        inner_rate: float = 0.1,
        first_order: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        if method not in METHODS:
            raise ValueError(f"Unknown method {method!r}. Expected one of {', '.join(METHODS)}.")
        self.settings: dict[str, Any] = {
            "method": method, "ways": ways, "shots": shots, "queries": queries, "inner_steps": inner_steps,
            "inner_rate": inner_rate, "first_order": first_order,
        }  # fmt: skip
        self.method, self.ways, self.shots, self.queries = method, ways, shots, queries
        self.adapts = method in ("maml", "reptile")
        self.accuracy = keras.metrics.Mean(name="accuracy")

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, *args: Any, **options: Any
    ) -> keras.callbacks.History:
        """As `keras.Model.fit`, of arrays whose batches are whole episodes."""
        if isinstance(x, dict) and x:
            rows, size = len(next(iter(x.values()))), batch_size or 32
            for part in (min(rows, size), rows % size or size):  # the last batch may be smaller
                self._check_rows(part)
        return super().fit(x, y, batch_size, *args, **options)

    def _check_rows(self, rows):
        episode = self.ways * (self.shots + self.queries)
        if rows is None or rows % episode:
            raise ValueError(
                f"Expected batches of a known number of episodes of {episode} rows. Received: {rows} rows."
            )

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Cross-entropy of the queries of a batch, by the features of its examples."""
        support, queries = self.parts(y_pred["embedding"])
        logits = losses.EPISODIC_LOGITS[self.method](support, self.labels(self.shots), queries)
        return self._told(self.labels(self.queries), logits) / replicas.count()

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return self.get_metrics_result()

    def parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Rows of episodes `(batch, ..)` to examples and queries `(episodes, ways * shots or queries, ..)`."""
        each = ops.reshape(rows, (-1, self.ways, self.shots + self.queries, *rows.shape[1:]))
        return tuple(
            ops.reshape(part, (-1, self.ways * part.shape[2], *rows.shape[1:]))
            for part in (each[:, :, : self.shots], each[:, :, self.shots :])
        )

    def labels(self, rows_a_class: int) -> Tensor:
        """Zeros and ones `(ways * rows_a_class, ways)` of the rows of an episode."""
        return ops.repeat(ops.eye(self.ways), rows_a_class, axis=0)

    def _told(self, labels, logits):
        right = ops.equal(ops.argmax(logits, axis=-1), ops.argmax(labels, axis=-1))
        self.accuracy.update_state(ops.mean(ops.cast(right, "float32")))
        return ops.mean(ops.logsumexp(logits, axis=-1) - ops.sum(labels * logits, axis=-1))

    def train_step(self, *given):
        if not self.adapts:
            return super().train_step(*given)
        import tensorflow as tf

        tasks = self._tasks(given)
        variables = self.trainable_variables
        if self.method == "maml":
            with tf.GradientTape() as tape:
                loss = sum(self._query_loss(*task, [v + 0.0 for v in variables]) for task in tasks) / len(tasks)
                own = self.optimizer.scale_loss(loss / replicas.count())
            gradients = tape.gradient(own, variables)
        else:
            reached = [self.adapted(*self._both(task), [v + 0.0 for v in variables]) for task in tasks]
            parts, each = len(tasks) * replicas.count(), zip(variables, *reached, strict=True)
            gradients = [v / replicas.count() - sum(values) / parts for v, *values in each]
            gradients = [self.optimizer.scale_loss(gradient) for gradient in gradients]
            loss = sum(self._query_loss(*task, [v + 0.0 for v in variables]) for task in tasks) / len(tasks)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._loss_tracker.update_state(loss)
        return self.get_metrics_result()

    def test_step(self, *given):
        if not self.adapts:
            return super().test_step(*given)
        weights, tasks = [v + 0.0 for v in self.trainable_variables], self._tasks(given)
        loss = sum(self._query_loss(*task, weights) for task in tasks) / len(tasks)
        self._loss_tracker.update_state(loss, sample_weight=len(tasks))
        return self.get_metrics_result()

    def _tasks(self, given):
        """Each episode of a batch: `(examples, queries)`, dicts of inputs."""
        x = self.matched(keras.utils.unpack_x_y_sample_weight(given[-1])[0])
        parts = {name: self.parts(value) for name, value in x.items()}
        rows = next(iter(x.values())).shape[0]
        self._check_rows(rows)
        count = rows // (self.ways * (self.shots + self.queries))
        return [tuple({name: part[i][t] for name, part in parts.items()} for i in (0, 1)) for t in range(count)]

    def _both(self, task):
        """Examples and queries of an episode together, and their labels: reptile learns from all."""
        rows = {name: ops.concatenate([part[name] for part in task]) for name in task[0]}
        return rows, ops.concatenate([self.labels(self.shots), self.labels(self.queries)])

    def _query_loss(self, examples, queries, weights):
        weights = self.adapted(examples, self.labels(self.shots), weights)
        return self._told(self.labels(self.queries), self.logits(queries, weights))

    def adapted(self, examples: Mapping[str, Tensor], labels: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """The weights after some steps of gradient descent on examples, the gradient passing through the steps.

        Args:
            examples: `{input: (rows, ..)}`.
            labels: zeros and ones `(rows, ways)`.
            weights: tensors, in the order of `trainable_variables`.
        """
        import tensorflow as tf

        for _ in range(self.settings["inner_steps"]):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                logits = self.logits(examples, weights)
                loss = ops.mean(ops.logsumexp(logits, axis=-1) - ops.sum(labels * logits, axis=-1))
            gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            if self.settings["first_order"]:
                gradients = [tf.stop_gradient(gradient) for gradient in gradients]
            weights = [w - self.settings["inner_rate"] * g for w, g in zip(weights, gradients, strict=True)]
        return weights

    def logits(self, x: Mapping[str, Tensor], weights: Sequence[Tensor]) -> Tensor:
        """The output `label` with these weights in place of the model's; batch norm by the rows at hand."""
        given = [ops.stop_gradient(v) for v in self.non_trainable_variables]
        return self.stateless_call(weights, given, x, training=True)[0]["label"]

    def get_config(self):
        return {**super().get_config(), **self.settings}
