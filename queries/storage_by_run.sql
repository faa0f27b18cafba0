-- title: Storage by run
-- description: What the checkpoints of each run take, the most first. A file counts for the checkpoint that wrote it;
--   files of deleted checkpoints that others still need are seen by `ckptlake du` alone.
-- parameter experiment text = null: only this experiment and those below it; null for all
-- column run_id: the run
-- column name: what people call it
-- column experiment: its experiment
-- column status: running, finished, failed or killed
-- column checkpoints: checkpoints that are there
-- column logical_bytes: bytes of all their tensors
-- column stored_bytes: bytes of the files of their tensors; the manifest beside each is small and not counted
-- column points: points of its metrics
WITH saved AS (
    SELECT run_id, count(*) AS checkpoints, sum(logical_bytes) AS logical_bytes, sum(stored_bytes) AS stored_bytes
    FROM checkpoints GROUP BY run_id
),
logged AS (SELECT run_id, sum(n) AS points FROM summaries GROUP BY run_id)
SELECT run_id, name, experiment, status, coalesce(checkpoints, 0) AS checkpoints,
    coalesce(logical_bytes, 0)::BIGINT AS logical_bytes, coalesce(stored_bytes, 0)::BIGINT AS stored_bytes,
    coalesce(points, 0)::BIGINT AS points
FROM runs LEFT JOIN saved USING (run_id) LEFT JOIN logged USING (run_id)
WHERE $experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment)
ORDER BY stored_bytes DESC, points DESC, run_id
