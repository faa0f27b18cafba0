-- title: Exploding layers
-- description: Tensors of a run whose norm grew by a factor, from one checkpoint to the next or since the first, the
--   worst first; also those that came to hold NaN or infinities. Norms are of the finite elements. Checkpoints
--   deleted since count; a norm that was zero grows from the next one on.
-- parameter run text required: the id of the run
-- parameter factor number = 10: from which growth on a tensor is listed
-- parameter prefix text = "": only tensors whose path begins so, such as model/
-- column path: where the tensor stands in the state
-- column checkpoints: checkpoints that have it
-- column first_norm: its first norm that is not zero
-- column last_norm: its norm in the last checkpoint
-- column growth: the last by the first
-- column worst_growth: the largest growth from one checkpoint to the next
-- column worst_step: the step of the checkpoint after that growth
-- column first_bad_step: the step of the first checkpoint in which it has NaN or infinities; null if in none
WITH held AS (
    SELECT path, step, checkpoint_id, l2_norm, n_nan + n_inf AS bad,
        l2_norm / nullif(lag(l2_norm) OVER (PARTITION BY path ORDER BY step, checkpoint_id), 0) AS growth
    FROM tensors WHERE run_id = $run AND starts_with(path, $prefix)
),
grown AS (
    SELECT path, count(*) AS checkpoints, arg_min(l2_norm, (step, checkpoint_id)) FILTER (l2_norm > 0) AS first_norm,
        arg_max(l2_norm, (step, checkpoint_id)) AS last_norm, last_norm / first_norm AS growth,
        max(held.growth) AS worst_growth, arg_max(step, held.growth) AS worst_step,
        arg_min(step, (step, checkpoint_id)) FILTER (bad > 0) AS first_bad_step
    FROM held GROUP BY path
)
SELECT * FROM grown
WHERE greatest(growth, worst_growth) >= $factor OR first_bad_step IS NOT NULL
ORDER BY greatest(growth, worst_growth) DESC NULLS LAST, path
