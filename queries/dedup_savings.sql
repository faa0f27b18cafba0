-- title: Savings by sharing and compression
-- description: For each experiment what its checkpoints would take, what they take, and what sharing equal tensors and
--   compressing them saves. Tensors that were trimmed away do not count.
-- parameter experiment text = null: only this experiment and those below it; null for all
-- column experiment: the experiment
-- column checkpoints: checkpoints whose tensors are known
-- column tensors: their tensors
-- column logical_bytes: bytes of these
-- column stored_bytes: bytes that they take
-- column saved_by_sharing: bytes of tensors that are stored at another place
-- column saved_by_compression: bytes by which the others are smaller than they were
-- column factor: logical bytes a stored byte; null if nothing is stored
WITH held AS (
    SELECT experiment, checkpoint_id, codec, nbytes, stored_bytes FROM tensors
    WHERE codec <> 'trimmed' AND ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment))
        AND checkpoint_id IN (SELECT checkpoint_id FROM checkpoints)
)
SELECT experiment, count(DISTINCT checkpoint_id) AS checkpoints, count(*) AS tensors,
    sum(nbytes)::BIGINT AS logical_bytes, sum(held.stored_bytes)::BIGINT AS stored_bytes,
    coalesce(sum(nbytes) FILTER (codec = 'shared'), 0)::BIGINT AS saved_by_sharing,
    coalesce(sum(nbytes - held.stored_bytes) FILTER (codec <> 'shared'), 0)::BIGINT AS saved_by_compression,
    sum(nbytes) / nullif(sum(held.stored_bytes), 0) AS factor
FROM held GROUP BY experiment ORDER BY saved_by_sharing + saved_by_compression DESC, experiment
