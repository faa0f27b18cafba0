-- title: Stale runs
-- description: Runs that call themselves running and have given no sign of life for a while: no point, no checkpoint,
--   no event. They hang, or their process died; `ckptlake recover` ends those that died.
-- parameter minutes number = 10: for how long
-- column run_id: the run
-- column name: what people call it
-- column experiment: its experiment
-- column host: the machine it was started on
-- column pid: the process there
-- column started_at: when it began
-- column last_sign_of_life: the latest point, checkpoint or event
-- column silent_s: seconds since
WITH points AS (SELECT run_id, max(last_ts) AS at FROM summaries GROUP BY run_id),
saves AS (SELECT run_id, max(ts) AS at FROM checkpoint_events WHERE event = 'saved' GROUP BY run_id),
signs AS (
    SELECT run_id, name, experiment, host, pid, started_at,
        greatest(started_at, updated_at, points.at, saves.at) AS last_sign_of_life
    FROM runs LEFT JOIN points USING (run_id) LEFT JOIN saves USING (run_id)
    WHERE status = 'running'
)
SELECT *, (epoch_us(now()) - epoch_us(last_sign_of_life)) / 1e6 AS silent_s
FROM signs
WHERE silent_s > $minutes * 60
ORDER BY last_sign_of_life, run_id
