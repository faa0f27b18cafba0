-- Runs that call themselves running and have logged nothing for a while; `ckptlake recover` ends those that died.
-- $minutes: for how long.
SELECT run_id, name, experiment, started_at, greatest(max(last_ts), any_value(updated_at)) AS last_sign_of_life
FROM runs LEFT JOIN summaries USING (run_id, experiment)
WHERE status = 'running'
GROUP BY ALL
HAVING last_sign_of_life IS NULL OR last_sign_of_life < now() - to_minutes($minutes)
ORDER BY last_sign_of_life
