-- The runs of an experiment and all below it, best first by a metric whose direction is declared.
-- $experiment: the experiment, such as 'pose'; $metric: the metric, such as 'val/loss'.
WITH ranked AS (
    SELECT run_id, direction,
        CASE direction WHEN 'min' THEN min WHEN 'max' THEN max END AS best,
        CASE direction WHEN 'min' THEN min_step WHEN 'max' THEN max_step END AS at_step,
        last, last_step
    FROM summaries JOIN definitions USING (experiment, metric)
    WHERE metric = $metric AND in_subtree(experiment, $experiment)
)
SELECT run_id, name, experiment, status, best, at_step, last, last_step
FROM ranked JOIN runs USING (run_id)
ORDER BY CASE direction WHEN 'min' THEN best ELSE -best END NULLS LAST, run_id
