-- title: Leaderboard
-- description: Runs by the best value of a metric, best first. Runs of experiments that declare no direction
--   for it come last, without a best value; NaN is never the best.
-- parameter metric text required: the metric, such as val/loss
-- parameter experiment text = null: only this experiment and those below it; null for all
-- column run_id: the run
-- column name: what people call it
-- column experiment: its experiment
-- column status: running, finished, failed or killed
-- column direction: min or max, as declared; null if it is not
-- column best: the best value
-- column at_step: the first step with it
-- column last: the value at the last step
-- column last_step: that step
WITH ranked AS (
    SELECT run_id, direction,
        CASE direction WHEN 'min' THEN min WHEN 'max' THEN max END AS best,
        CASE direction WHEN 'min' THEN min_step WHEN 'max' THEN max_step END AS at_step,
        last, last_step
    FROM summaries LEFT JOIN definitions USING (experiment, metric)
    WHERE metric = $metric AND ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment))
)
SELECT run_id, name, experiment, status, direction, best, at_step, last, last_step
FROM ranked JOIN runs USING (run_id)
ORDER BY best IS NULL, direction, CASE direction WHEN 'max' THEN -best ELSE best END, run_id
