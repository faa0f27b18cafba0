-- title: Dead layers
-- description: Tensors of a run that are zero for the most part in its last checkpoint that has them, those with the
--   most zeros first. Large tensors are judged by a sample of about one element in 32.
-- parameter run text required: the id of the run
-- parameter zero_fraction number = 0.9: from which part of zeros on a tensor is listed
-- parameter prefix text = "": only tensors whose path begins so, such as model/
-- column path: where the tensor stands in the state
-- column num_elements: its elements
-- column step: the step of the last checkpoint
-- column zeros: the part that is zero there
-- column first_zeros: the part that was zero in the first checkpoint
-- column dead_since: the step of the first checkpoint from which on it was listed
WITH held AS (
    SELECT path, step, checkpoint_id, num_elements, tensors.zero_fraction AS zeros FROM tensors
    WHERE run_id = $run AND starts_with(path, $prefix) AND tensors.zero_fraction IS NOT NULL
),
ends AS (
    SELECT path, arg_max(num_elements, (step, checkpoint_id)) AS num_elements,
        arg_max(step, (step, checkpoint_id)) AS step, arg_max(zeros, (step, checkpoint_id)) AS zeros,
        arg_min(zeros, (step, checkpoint_id)) AS first_zeros,
        max((step, checkpoint_id)) FILTER (zeros < $zero_fraction) AS last_alive
    FROM held GROUP BY path
),
dead AS (
    SELECT path, arg_min(held.step, (held.step, checkpoint_id)) AS dead_since FROM held JOIN ends USING (path)
    WHERE last_alive IS NULL OR (held.step, checkpoint_id) > last_alive GROUP BY path
)
SELECT path, num_elements, step, zeros, first_zeros, dead_since
FROM ends JOIN dead USING (path)
WHERE zeros >= $zero_fraction
ORDER BY zeros DESC, num_elements DESC, path
