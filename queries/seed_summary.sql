-- title: Summary over seeds
-- description: Mean, standard deviation and number of runs of each configuration: runs of one experiment whose params
--   are the same but for the seed. The best come first where a direction is declared. Runs that ended at NaN or
--   infinity are counted apart.
-- parameter metric text required: the metric, such as val/loss
-- parameter experiment text = null: only this experiment and those below it; null for all
-- parameter seed text = "seed": the param that does not count, by this name at any depth, as in data.seed
-- column experiment: the experiment
-- column configuration: the params that count, as text
-- column n: runs whose last value is finite
-- column mean: mean of their last values
-- column std: standard deviation of them; null for one run
-- column best_mean: mean of the best values; null if no direction is declared
-- column best_std: standard deviation of them
-- column not_finite: runs whose last value is NaN or infinite
WITH configurations AS (
    SELECT run_id, list({'key': key, 'kind': kind, 'value': value} ORDER BY key) AS params
    FROM params WHERE key <> $seed AND NOT ends_with(key, '.' || $seed) GROUP BY run_id
),
results AS (
    SELECT run_id, experiment, direction, coalesce(params, []) AS params, last,
        CASE direction WHEN 'min' THEN min WHEN 'max' THEN max END AS best
    FROM summaries LEFT JOIN definitions USING (experiment, metric) LEFT JOIN configurations USING (run_id)
    WHERE metric = $metric AND ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment))
),
summed AS (
    SELECT experiment, direction, params,
        count(*) FILTER (isfinite(last)) AS n,
        avg(last ORDER BY run_id) FILTER (isfinite(last)) AS mean,
        stddev_samp(last ORDER BY run_id) FILTER (isfinite(last)) AS std,
        avg(best ORDER BY run_id) FILTER (isfinite(best)) AS best_mean,
        stddev_samp(best ORDER BY run_id) FILTER (isfinite(best)) AS best_std,
        count(*) FILTER (NOT isfinite(last)) AS not_finite
    FROM results GROUP BY experiment, direction, params
)
SELECT experiment,
    array_to_string(list_transform(params, lambda one: one.key || '=' || coalesce(one.value, 'null')), ', ')
        AS configuration,
    n, mean, std, best_mean, best_std, not_finite
FROM summed
ORDER BY CASE direction WHEN 'max' THEN -mean WHEN 'min' THEN mean END, experiment, configuration, params
