"""Linear regression by all workers of a job, with numpy alone.

solond --job-dimension 8 --job-groups 2 --job-adversaries 1 --job-compression 1 --job-scale 0.5
for worker in 0 1 2 3 4 5; do SOLON_ENDPOINT=127.0.0.1:7447 SOLON_WORKER=$worker python3 numpy_worker.py & done
"""

import numpy
import solon

truth = numpy.arange(8, dtype=numpy.float32)
inputs = numpy.random.default_rng(1).standard_normal((4096, 8), numpy.float32)
labels, weights = inputs @ truth, numpy.zeros(8, numpy.float32)

with solon.join() as worker:
    assert worker.next_round == 0, "the others have begun: their weights are others already"
    batches = solon.GroupBatchSampler(len(inputs), 64, worker, seed=1)
    for batch in batches:
        error = inputs[batch] @ weights - labels[batch]
        gradient = inputs[batch].T @ error / len(batch)
        worker.exchange(gradient)  # Now it is the mean of all groups' gradients.
        weights -= 0.5 * gradient
    print("weights:", weights.round(3))
