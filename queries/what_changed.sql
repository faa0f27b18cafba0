-- title: What changed between two runs
-- description: Params, tags, packages, the commit and other surroundings that differ between two runs. No rows if they
--   agree in all, or if one of them is not there.
-- parameter before text required: the id of one run
-- parameter after text required: the id of the other
-- column kind: param, tag, environment or package
-- column key: which one
-- column before: its value in the one run; null if it has none
-- column after: its value in the other
WITH described AS (
    SELECT run_id, 'param' AS kind, key, coalesce(value, 'null') AS value FROM params
    UNION ALL
    SELECT run_id, 'tag', key, coalesce(value, 'null') FROM tags
    UNION ALL
    SELECT run_id, 'environment', unnest(
        ['experiment', 'git_commit', 'git_branch', 'git_dirty', 'host', 'command', 'python']
    ), unnest([experiment, git_commit, git_branch, git_dirty::VARCHAR, host, command, python]) FROM runs
    UNION ALL
    SELECT run_id, 'package', unnest(json_keys(packages)), unnest(json_extract_string(packages, '$.*')) FROM runs
),
one AS (SELECT * FROM described WHERE run_id = $before),
other AS (SELECT * FROM described WHERE run_id = $after)
SELECT coalesce(one.kind, other.kind) AS kind, coalesce(one.key, other.key) AS key, one.value AS before,
    other.value AS after
FROM one FULL JOIN other ON one.kind = other.kind AND one.key = other.key
WHERE one.value IS DISTINCT FROM other.value
    AND EXISTS (FROM runs WHERE run_id = $before) AND EXISTS (FROM runs WHERE run_id = $after)
ORDER BY kind, key
