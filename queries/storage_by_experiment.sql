-- title: Storage by experiment
-- description: What the checkpoints of each experiment take, the most first; experiments below one count for
--   themselves. Files count for the checkpoint that wrote them; those of deleted checkpoints that others still need
--   are seen by `ckptlake du` alone.
-- parameter experiment text = null: only this experiment and those below it; null for all
-- column experiment: the experiment
-- column runs: its runs
-- column checkpoints: their checkpoints that are there
-- column logical_bytes: bytes of all tensors of these
-- column stored_bytes: bytes of the files of their tensors; the manifest beside each is small and not counted
-- column share: of all stored bytes in the answer
-- column points: points of its metrics
WITH started AS (SELECT experiment, count(*) AS runs FROM runs GROUP BY experiment),
saved AS (
    SELECT experiment, count(*) AS checkpoints, sum(logical_bytes) AS logical_bytes, sum(stored_bytes) AS stored_bytes
    FROM checkpoints GROUP BY experiment
),
logged AS (SELECT experiment, sum(n) AS points FROM summaries GROUP BY experiment)
SELECT experiment, runs, coalesce(checkpoints, 0) AS checkpoints, coalesce(logical_bytes, 0)::BIGINT AS logical_bytes,
    coalesce(saved.stored_bytes, 0)::BIGINT AS stored_bytes,
    coalesce(saved.stored_bytes, 0) / nullif(sum(saved.stored_bytes) OVER (), 0) AS share,
    coalesce(points, 0)::BIGINT AS points
FROM started LEFT JOIN saved USING (experiment) LEFT JOIN logged USING (experiment)
WHERE $experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment)
ORDER BY coalesce(saved.stored_bytes, 0) DESC, points DESC, experiment
