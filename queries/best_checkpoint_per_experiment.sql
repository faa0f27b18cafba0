-- title: Best checkpoint of each experiment
-- description: For each experiment the good checkpoint with the best value of a metric. An experiment that declares
--   no direction for the metric has a row without a checkpoint; a checkpoint saved with NaN is never the best.
-- parameter metric text required: the metric, such as val/loss
-- parameter experiment text = null: only this experiment and those below it; null for all
-- column experiment: the experiment
-- column direction: min or max, as declared; null if it is not
-- column checkpoint_id: the best checkpoint; of equal ones the newest
-- column run_id: the run that saved it
-- column step: at which step
-- column value: the metric's value
-- column saved_at: when it was saved
-- column candidates: good checkpoints that were saved with the metric
WITH valued AS (
    SELECT experiment, checkpoint_id, run_id, step, saved_at, checkpoints.metrics[$metric] AS value
    FROM checkpoints
    WHERE status = 'good' AND ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment))
),
ranked AS (
    SELECT *, NOT isnan(value) AND direction IS NOT NULL AS is_ranked,
        count(*) OVER (PARTITION BY experiment) AS candidates
    FROM valued LEFT JOIN (SELECT experiment, direction FROM definitions WHERE metric = $metric) USING (experiment)
    WHERE value IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY experiment
        ORDER BY is_ranked DESC, CASE direction WHEN 'max' THEN -value ELSE value END, saved_at DESC, checkpoint_id DESC
    ) = 1
)
SELECT experiment, direction,
    CASE WHEN is_ranked THEN checkpoint_id END AS checkpoint_id,
    CASE WHEN is_ranked THEN run_id END AS run_id,
    CASE WHEN is_ranked THEN step END AS step,
    CASE WHEN is_ranked THEN value END AS value,
    CASE WHEN is_ranked THEN saved_at END AS saved_at,
    candidates
FROM ranked ORDER BY experiment
