-- title: NaN and divergence
-- description: Runs whose metric has NaN or infinite points, or ends far worse than it was at its best. How far is told
--   where a direction is declared and both values are positive; the first NaN or infinity is told in any case.
-- parameter metric text required: the metric, such as train/loss
-- parameter experiment text = null: only this experiment and those below it; null for all
-- parameter ratio number = 10: from which ratio to the best on a run counts as diverged
-- column run_id: the run
-- column name: what people call it
-- column experiment: its experiment
-- column status: running, finished, failed or killed
-- column bad_points: points that are NaN or infinite
-- column first_bad_step: the first step of these
-- column last_finite: the value at the last step where it is finite
-- column last_finite_step: that step
-- column best: the best finite value; null if no direction is declared
-- column best_step: the first step with it
-- column ratio_to_best: how many times worse the last finite value is
WITH curves AS (
    SELECT run_id, direction, n_nan + n_inf AS bad_points, last, last_step, min, min_step, max, max_step
    FROM summaries LEFT JOIN definitions USING (experiment, metric)
    WHERE metric = $metric AND ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment))
),
broken AS (
    SELECT run_id, min(step) FILTER (NOT isfinite(value)) AS first_bad_step,
        arg_max(value, step) FILTER (isfinite(value)) AS last, max(step) FILTER (isfinite(value)) AS last_step,
        min(value) FILTER (isfinite(value)) AS min, arg_min(step, (value, step)) FILTER (isfinite(value)) AS min_step,
        max(value) FILTER (isfinite(value)) AS max, arg_min(step, (-value, step)) FILTER (isfinite(value)) AS max_step
    FROM metrics
    WHERE metric = $metric AND ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment))
        AND run_id IN (SELECT run_id FROM curves WHERE bad_points > 0)
    GROUP BY run_id
),
finite AS (
    SELECT run_id, direction, bad_points, NULL AS first_bad_step, last, last_step, min, min_step, max, max_step
    FROM curves WHERE bad_points = 0
    UNION ALL BY NAME
    SELECT run_id, direction, bad_points, broken.* EXCLUDE (run_id) FROM curves JOIN broken USING (run_id)
),
compared AS (
    SELECT *, CASE direction WHEN 'min' THEN min WHEN 'max' THEN max END AS best,
        CASE direction WHEN 'min' THEN min_step WHEN 'max' THEN max_step END AS best_step,
        CASE WHEN best > 0 AND last > 0 THEN CASE direction WHEN 'min' THEN last / best ELSE best / last END END
            AS ratio_to_best
    FROM finite
)
SELECT run_id, name, experiment, status, bad_points, first_bad_step, last AS last_finite, last_step AS last_finite_step,
    best, best_step, ratio_to_best
FROM compared JOIN runs USING (run_id)
WHERE bad_points > 0 OR ratio_to_best >= $ratio
ORDER BY bad_points = 0, ratio_to_best DESC NULLS LAST, run_id
