-- title: Slowest runs
-- description: Steps a second of each run, the slowest first, from the steps and times of its metrics; time between two
--   attempts counts. With the mean load of its GPUs where the machine's metrics were logged.
-- parameter experiment text = null: only this experiment and those below it; null for all
-- column run_id: the run
-- column name: what people call it
-- column experiment: its experiment
-- column status: running, finished, failed or killed
-- column steps: from the first step to the last
-- column span_s: seconds from the first point to the last
-- column steps_per_s: steps a second; null if all points came at once
-- column gpus: GPUs whose load was logged
-- column gpu_utilization_percent: the mean of it; null without any
WITH paced AS (
    SELECT run_id, TRY_CAST(max(last_step)::HUGEINT - min(first_step) AS BIGINT) AS steps,
        (epoch_us(max(last_ts)) - epoch_us(min(first_ts))) / 1e6 AS span_s
    FROM summaries WHERE NOT starts_with(metric, 'system/') GROUP BY run_id
),
gpus AS (
    SELECT run_id, count(*) AS gpus, sum(sum ORDER BY metric) / nullif(sum(n - n_nan), 0) AS gpu_utilization_percent
    FROM summaries WHERE regexp_full_match(metric, 'system/gpu\.[0-9]+\.utilization_percent') GROUP BY run_id
)
SELECT run_id, name, experiment, status, steps, span_s, steps / nullif(span_s, 0) AS steps_per_s,
    coalesce(gpus, 0) AS gpus, gpu_utilization_percent
FROM paced JOIN runs USING (run_id) LEFT JOIN gpus USING (run_id)
WHERE $experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment)
ORDER BY steps_per_s NULLS LAST, run_id
