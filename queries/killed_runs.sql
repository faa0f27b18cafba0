-- title: Killed runs
-- description: Runs whose process died or was killed, the latest first, with the checkpoint from which they could go
--   on and the steps that are lost.
-- parameter experiment text = null: only this experiment and those below it; null for all
-- column run_id: the run
-- column name: what people call it
-- column experiment: its experiment
-- column attempt: which attempt was killed
-- column host: the machine it was started on
-- column started_at: when it began
-- column ended_at: when that was noticed
-- column last_ts: when it logged its last point
-- column last_step: the largest step of its metrics, without those of the machine
-- column checkpoint_id: its good checkpoint of the largest step; null without one
-- column checkpoint_step: that step
-- column steps_lost: steps logged after it
WITH points AS (
    SELECT run_id, max(last_ts) AS last_ts, max(last_step) AS last_step
    FROM summaries WHERE NOT starts_with(metric, 'system/') GROUP BY run_id
),
saved AS (
    SELECT run_id, checkpoint_id, step AS checkpoint_step FROM checkpoints
    WHERE status = 'good' AND step IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY step DESC, saved_at DESC, checkpoint_id DESC) = 1
)
SELECT run_id, name, experiment, attempt, host, started_at, ended_at, last_ts, last_step, checkpoint_id,
    checkpoint_step,
    TRY_CAST(greatest(last_step::HUGEINT - checkpoint_step, 0) AS BIGINT) AS steps_lost
FROM runs LEFT JOIN points USING (run_id) LEFT JOIN saved USING (run_id)
WHERE status = 'killed' AND ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment))
ORDER BY ended_at DESC, run_id
