-- title: Plateaued runs
-- description: Runs whose best step lies long before their last one, those that went on in vain for longest first.
--   Runs whose experiment declares no direction for the metric have no best step and are not listed.
-- parameter metric text required: the metric, such as val/loss
-- parameter experiment text = null: only this experiment and those below it; null for all
-- parameter fraction number = 0.5: which part of its steps a run must have gone on after its best
-- column run_id: the run
-- column name: what people call it
-- column experiment: its experiment
-- column status: running, finished, failed or killed
-- column best: the best value
-- column best_step: the first step with it
-- column last: the value at the last step
-- column last_step: that step
-- column steps_since: steps since the best
-- column fraction_since: which part of all its steps that is
WITH curves AS (
    SELECT run_id, CASE direction WHEN 'min' THEN min WHEN 'max' THEN max END AS best,
        CASE direction WHEN 'min' THEN min_step WHEN 'max' THEN max_step END AS best_step, last, last_step,
        TRY_CAST(last_step::HUGEINT - best_step AS BIGINT) AS steps_since,
        (last_step::HUGEINT - best_step) / nullif(last_step::HUGEINT - first_step, 0) AS fraction_since
    FROM summaries JOIN definitions USING (experiment, metric)
    WHERE metric = $metric AND ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment))
)
SELECT run_id, name, experiment, status, best, best_step, last, last_step, steps_since, fraction_since
FROM curves JOIN runs USING (run_id)
WHERE fraction_since >= $fraction
ORDER BY fraction_since DESC, steps_since DESC, run_id
