"""Optimise embedding tables by a variant of Adam that updates only the rows of a batch.

The method is algorithm 1 of Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, in the lazy (sparse)
variant, in which rows that are not in a batch keep their moments. A table has one second moment per row instead of one
per number, which reduces the memory traffic. The optimiser `PARTIAL_ROWWISE_ADAM` of FBGEMM does the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from recsys_train.model.quiet_tf import tf

BETA_1: Final = 0.9
BETA_2: Final = 0.999
EPSILON: Final = 1e-8


class RowwiseAdam:
    """Row-wise lazy Adam optimiser, which updates a set of variables and stores their moments.

    Parameters
    ----------
    variables
        The variables to update, `tf.Variable` by name, float32.
    tables
        Names of the variables that are embedding tables, of shape (n_rows, dim).
    """

    def __init__(self, variables: Mapping[str, Any], tables: Collection[str]) -> None:
        self._variables = variables
        self._means = {name: tf.Variable(tf.zeros_like(value)) for name, value in variables.items()}
        self._squares = {
            name: tf.Variable(tf.zeros_like(value[:, :1] if name in tables else value))
            for name, value in variables.items()
        }
        self._step = tf.Variable(0.0)

    def apply(
        self, values: Mapping[str, Any], gradients: Mapping[str, Any], rows: Mapping[str, Any], learning_rate: Any
    ) -> None:
        """Apply one optimiser step to the variables.

        Parameters
        ----------
        values, gradients
            Current values and their gradients, tensors by name of the variable. The tensor of a table contains the rows
            of the batch, (n, dim). The tensor of any other variable contains the whole variable.
        rows
            Indices of the rows of the batch, (n,), by name of the table. No index may occur twice.
        learning_rate
            Scalar tensor.
        """
        self._step.assign_add(1.0)
        rate = learning_rate * tf.sqrt(1 - BETA_2**self._step) / (1 - BETA_1**self._step)
        for name, gradient in gradients.items():
            moments = self._means[name], self._squares[name]
            old_mean, old_square = (
                tf.gather(variable, rows[name]) if name in rows else variable for variable in moments
            )
            mean = BETA_1 * old_mean + (1 - BETA_1) * gradient
            new_square = tf.square(gradient)
            if name in rows:
                new_square = tf.reduce_mean(new_square, axis=1, keepdims=True)
            square = BETA_2 * old_square + (1 - BETA_2) * new_square
            value = values[name] - rate * mean / (tf.sqrt(square) + EPSILON)
            for variable, new in zip((*moments, self._variables[name]), (mean, square, value), strict=True):
                if name in rows:
                    variable.scatter_update(tf.IndexedSlices(new, rows[name]))
                else:
                    variable.assign(new)
