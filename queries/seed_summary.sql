-- Mean, standard deviation and number of runs of each configuration: params but the seed are the same.
-- $experiment: the experiment; $metric: the metric, read at each run's last step.
WITH configurations AS (
    SELECT run_id, string_agg(key || '=' || coalesce(value, 'null'), ', ' ORDER BY key)
        FILTER (key <> 'seed' AND NOT key LIKE '%.seed') AS configuration
    FROM params GROUP BY run_id
)
SELECT coalesce(configuration, '') AS configuration, count(*) AS n, avg(last) AS mean, stddev_samp(last) AS std
FROM summaries LEFT JOIN configurations USING (run_id)
WHERE metric = $metric AND in_subtree(experiment, $experiment)
GROUP BY ALL ORDER BY mean, configuration
