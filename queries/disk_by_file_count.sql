-- title: Files of checkpoints
-- description: For each experiment how many files its checkpoints lie in, the most first; many small ones are slow to
--   copy and list. A file that several experiments need counts in each. The files of the tables are counted by
--   `ckptlake du`, and so are files that deleted checkpoints have left.
-- parameter experiment text = null: only this experiment and those below it; null for all
-- column experiment: the experiment
-- column checkpoints: its checkpoints that are there
-- column files: files that they lie in: one for each checkpoint, and the packs of tensors
-- column packs: of these, packs
-- column stored_bytes: bytes of the packs, for the experiment that wrote them
-- column bytes_per_file: stored bytes a file
WITH held AS (
    SELECT experiment, checkpoint_id, location, packs, stored_bytes FROM checkpoints
    WHERE $experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment)
),
packed AS (
    SELECT experiment, count(DISTINCT pack) AS packs FROM (SELECT experiment, unnest(packs) AS pack FROM held)
    GROUP BY experiment
)
SELECT experiment, count(*) AS checkpoints, count(DISTINCT location) + coalesce(any_value(packed.packs), 0) AS files,
    coalesce(any_value(packed.packs), 0) AS packs, coalesce(sum(stored_bytes), 0)::BIGINT AS stored_bytes,
    coalesce(sum(held.stored_bytes), 0) / files AS bytes_per_file
FROM held LEFT JOIN packed USING (experiment)
GROUP BY experiment ORDER BY files DESC, experiment
